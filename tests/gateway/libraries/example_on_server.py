"""`examples/start` with the tables on a database of a server: its arguments, and in the environment where it is itself
($START), the URL of an empty database ($DATABASE), the tables ($TABLES), and a folder ($PLACE)."""
import argparse
import json
import os
import sqlite3
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from urllib.parse import urlsplit

start = module_from_spec(spec_from_loader("start", SourceFileLoader("start", os.environ["START"])))
start.__loader__.exec_module(start)
place, url = Path(os.environ["PLACE"]), os.environ["DATABASE"]
words = argparse.ArgumentParser()
words.add_argument("system")
words.add_argument("--port", type=int)
words.add_argument("--upstream")
words.add_argument("--cases", type=Path)
arguments = words.parse_args()
fixtures = json.loads(arguments.cases.read_text(encoding="utf-8"))["systems"][arguments.system]["fixtures"]
example, load, usual = start.SYSTEMS[arguments.system]
is_postgres = url.startswith("postgres")


def tell(statements):
    """Has the server's own client carry them out."""
    server = urlsplit(url)
    if is_postgres:
        command = ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", url]
    else:
        command = ["mariadb", "--no-defaults", "--default-character-set=utf8mb4", "--protocol=tcp", "-u", server.username]
        command += ["-h", server.hostname, "-P", str(server.port), server.path[1:]]
    subprocess.run(command, input=statements, text=True, check=True, stdout=subprocess.DEVNULL)


def quoted(value):
    # as text: each server makes of it what the column is of
    if value is None:
        return "NULL"
    text = str(value).replace("'", "''")
    return f"'{text}'" if is_postgres else "'" + text.replace("\\", "\\\\") + "'"


def rows():
    """What the example has in SQLite, as statements."""
    mark = '"' if is_postgres else "`"
    with sqlite3.connect(":memory:") as database:
        load(database, fixtures, usual)
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        for (table,) in tables.fetchall():
            found = database.execute(f'SELECT * FROM "{table}"')
            names = ", ".join(f"{mark}{column[0]}{mark}" for column in found.description)
            for row in found:
                yield f"INSERT INTO {mark}{table}{mark} ({names}) VALUES ({', '.join(map(quoted, row))});"
            if is_postgres:
                yield f"""SELECT setval(pg_get_serial_sequence('"{table}"', 'id'), 1 + max(id)) FROM "{table}";"""


# a port may be taken meanwhile: then this is run once more
if load is not start.load_nothing and not (place / "loaded").exists():
    kind = "django" if load is start.load_django else "flask"
    tables = Path(os.environ["TABLES"]) / f"{kind}_{'postgres' if is_postgres else 'mysql'}.sql"
    # one of the tokens is of somebody who is gone
    unchecked = "SET session_replication_role = replica;" if is_postgres else "SET foreign_key_checks = 0;"
    tell("\n".join([tables.read_text(encoding="utf-8"), unchecked, *rows()]))
    (place / "loaded").touch()
config = place / "gateway.yaml"
config.write_text(start.configuration(example), encoding="utf-8")
variables = {**start.environment(place, arguments, fixtures), "DATABASE_URL": url}
gateway = os.environ["PORTCULLIS"]
start.add_clients(gateway, config, variables, fixtures.get("clients", [])[1:])
sys.stdout.flush()
os.chdir(place)
os.execve(gateway, [gateway, "run", "--config", str(config)], variables)
