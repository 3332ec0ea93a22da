# Portcullis as a small image: built with all its dependencies, run as nobody in particular.
#   docker build -t portcullis .
#   docker run -p 8443:8443 -v "$PWD":/etc/portcullis:ro -v portcullis:/var/lib/portcullis portcullis
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --locked --release --bin portcullis && install -m 0755 target/release/portcullis /portcullis

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/portcullis --create-home portcullis
COPY --from=build /portcullis /usr/local/bin/portcullis
# of Swagger UI, which is in the program
COPY assets/swagger-ui/LICENSE assets/swagger-ui/NOTICE assets/swagger-ui/swagger-ui-bundle.js.LICENSE.txt /usr/share/doc/portcullis/swagger-ui/
USER portcullis
# a place for the store, which the configuration has to name; the configuration is mounted, and read only
WORKDIR /var/lib/portcullis
VOLUME /var/lib/portcullis
EXPOSE 8443
STOPSIGNAL SIGTERM
# Asks the admin listener as a caller would, by bash, since the image has no HTTP client. ADMIN is admin.address of the
# configuration; whatever is in front of the container should ask /readyz itself.
ENV ADMIN=127.0.0.1/9901
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/$ADMIN && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["portcullis"]
CMD ["run", "--config", "/etc/portcullis/gateway.yaml"]
