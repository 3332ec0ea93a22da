// Starts Swagger UI on the document beside this script. Nothing of it comes from the page's URL: `queryConfigEnabled` would
// let a link name another document, and with it another server to send credentials to.
"use strict";
(() => {
  const url = new URL("openapi.json", document.currentScript.src).href;
  window.addEventListener("DOMContentLoaded", () => {
    SwaggerUIBundle({
      url,
      dom_id: "#swagger-ui",
      presets: [SwaggerUIBundle.presets.apis],
      layout: "BaseLayout",
      queryConfigEnabled: false,
      persistAuthorization: false,
      validatorUrl: null,
      oauth2RedirectUrl: undefined,
      deepLinking: false,
      withCredentials: false,
      tryItOutEnabled: true,
      docExpansion: "list",
      defaultModelsExpandDepth: -1,
    });
  });
})();
