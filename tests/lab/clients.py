"""The programs that people run on compute nodes, each with the shortest use of it that proves it got out and back."""

from __future__ import annotations

from dataclasses import dataclass

from hpcproxy.lab.trust import AUTHORITY

from .standins import DOMAIN, PORT

# Beyond what all tests need; each maps a program to Debian's package. A JVM alone runs no program given as source.
TOOLS = {"rsync": "rsync", "java": "default-jdk-headless", "javac": "default-jdk-headless"}
WWW = f"https://www.{DOMAIN}:{PORT}/token"


@dataclass(frozen=True)
class Client:
    """`script` prints the token of the internet, or logs it; `seen` is the request that the service must have had."""

    name: str
    version: str
    script: str
    seen: str
    prints: bool = True


def url_of(service: str) -> str:
    return f"https://{service}.{DOMAIN}:{PORT}"


def in_python(code: str) -> str:
    return f"python - <<'END'\n{code}END\n"


def installed(package: str) -> str:
    return f"""python -c 'import importlib.metadata as m; print(m.version("{package}"))'"""


_CURL = f"curl -sS {WWW}\ncurl -sS http://{DOMAIN}/ip\n"
_WGET = f"wget -q -O - {WWW}\nwget -q -O - http://{DOMAIN}/ip\n"
_GIT = f"git clone -q {url_of('git')}/lab.git\ncat lab/token\n"
_GIT_SSH = f"git clone -q git.{DOMAIN}:/srv/standins/git/lab.git\ncat lab/token\n"
_SCP = f"scp -q git.{DOMAIN}:/srv/standins/token .\ncat token\n"
_RSYNC = f"rsync -q git.{DOMAIN}:/srv/standins/token .\ncat token\n"
_UV = f"""uv pip install -q --no-cache --no-deps --target got --index-url {url_of("pypi")}/simple/ labwheel
PYTHONPATH=got python -c 'import labwheel; print(labwheel.TOKEN)'
"""
_OPENAI = f"""import openai
client = openai.OpenAI(base_url="{url_of("openai")}/v1", api_key="lab", timeout=20)
stream = client.chat.completions.create(model="lab", stream=True, messages=[dict(role="user", content="the token?")])
print("".join(piece.choices[0].delta.content or "" for piece in stream))
"""
_ANTHROPIC = f"""import anthropic
client = anthropic.Anthropic(base_url="{url_of("anthropic")}", api_key="lab", timeout=20)
with client.messages.stream(model="lab", max_tokens=99, messages=[dict(role="user", content="the token?")]) as stream:
    print("".join(stream.text_stream))
"""
_PIP = f"""pip install -q --no-deps --target got --index-url {url_of("pypi")}/simple/ labwheel
PYTHONPATH=got python -c 'import labwheel; print(labwheel.TOKEN)'
"""
_REQUESTS = f"""import requests
answer = requests.get("{WWW}", timeout=20)
answer.raise_for_status()
print(answer.text)
"""
_HTTPX = f"""import httpx
print(httpx.get("{WWW}", timeout=20).raise_for_status().text)
"""
_AIOHTTP = f"""import asyncio
import aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get("{WWW}") as answer:
        print(await answer.text())
asyncio.run(main())
"""
_URLLIB = f"""import urllib.request
print(urllib.request.urlopen("{WWW}", timeout=20).read().decode())
"""
_BOTO3 = f"""import boto3
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url="{url_of("s3")}", region_name="us-east-1", aws_access_key_id="lab",
                  aws_secret_access_key="lab", config=Config(s3={{"addressing_style": "path"}}))
token = s3.get_object(Bucket="lab", Key="token")["Body"].read()
s3.put_object(Bucket="lab", Key="back", Body=token * 1000)
assert s3.get_object(Bucket="lab", Key="back")["Body"].read() == token * 1000
print(token.decode())
"""
_HUB = """import os
import huggingface_hub
assert huggingface_hub.HfApi().model_info("lab/model").siblings[0].rfilename == "token.txt"
print(open(huggingface_hub.hf_hub_download("lab/model", "token.txt", cache_dir="cache")).read())
"""
_FETCH = f"""node -e 'fetch("{WWW}").then(answer => answer.text()).then(text => console.log(text))'
"""
_NPM = f"""npm install --silent --no-audit --no-fund --cache cache --registry {url_of("npm")}/ labpackage
node -p 'require("labpackage")'
"""
# The JVM believes neither the system's bundle nor a variable, only a store in a form of its own.
_NO_TRACE = "-XX:-UsePerfData"  # else each JVM makes /tmp/hsperfdata_USER, which stays
_STORE = "-keystore trust -storepass changeit"
_JAVA = f"""keytool -J{_NO_TRACE} -importcert -noprompt -alias lab -file {AUTHORITY} {_STORE} 2>keytool
cat >Get.java <<'END'
import java.net.URL;
class Get {{
    public static void main(String[] urls) throws Exception {{
        for (String url : urls) new URL(url).openStream().transferTo(System.out);
    }}
}}
END
java {_NO_TRACE} -Djavax.net.ssl.trustStore=trust -Djavax.net.ssl.trustStorePassword=changeit Get.java {WWW} http://{DOMAIN}/ip
python -u -m http.server 18080 >served 2>&1 &
until grep -q Serving served; do sleep 0.1; done
java {_NO_TRACE} Get.java "http://$(hostname):18080/" >listed
kill $!
grep -v '^192.168.31.10 ' served | grep -q 'GET / '  # its own node is asked by itself, and not by the jump host
"""
_SWANLAB = """import os
import swanlab
swanlab.init(project="lab", workspace="alice")
swanlab.log({"loss": int(os.environ["LOSS"])})
swanlab.finish()
"""
_WANDB = """import os
import wandb
run = wandb.init(project="lab", entity="alice", settings=wandb.Settings(init_timeout=20))
run.log({"loss": int(os.environ["LOSS"])})
run.finish()
"""

CLIENTS = (
    Client("curl", "curl --version", _CURL, "www GET /token"),
    Client("wget", "wget --version", _WGET, "www GET /token"),
    Client("git over https", "git --version", _GIT, "git POST /lab.git/git-upload-pack"),
    Client("git over ssh", "git --version", _GIT_SSH, "ssh"),
    Client("scp", "ssh -V 2>&1", _SCP, "ssh"),
    Client("rsync", "rsync --version", _RSYNC, "ssh"),
    Client("uv pip install", "uv --version", _UV, "pypi GET /files/labwheel-1.0-py3-none-any.whl"),
    Client("openai, streaming", installed("openai"), in_python(_OPENAI), "openai POST /v1/chat/completions"),
    Client("anthropic, streaming", installed("anthropic"), in_python(_ANTHROPIC), "anthropic POST /v1/messages"),
    Client("pip install", "pip --version", _PIP, "pypi GET /files/labwheel-1.0-py3-none-any.whl"),
    Client("requests", installed("requests"), in_python(_REQUESTS), "www GET /token"),
    Client("httpx", installed("httpx"), in_python(_HTTPX), "www GET /token"),
    Client("aiohttp, trust_env=True", installed("aiohttp"), in_python(_AIOHTTP), "www GET /token"),
    Client("urllib.request", "python --version", in_python(_URLLIB), "www GET /token"),
    Client("boto3", installed("boto3"), in_python(_BOTO3), "s3 PUT /lab/back"),
    Client("huggingface_hub", installed("huggingface_hub"), in_python(_HUB), "hub GET /lab/model/resolve/.*/token.txt"),
    Client("Node's fetch", "node --version", _FETCH, "www GET /token"),
    Client("npm install", "npm --version", _NPM, "npm GET /labpackage/-/labpackage-1.0.0.tgz"),
    Client("Java", f"java {_NO_TRACE} -version 2>&1 | grep version", _JAVA, "www GET /token"),
    Client("swanlab", installed("swanlab"), in_python(_SWANLAB), "swanlab POST /api/house/metrics", prints=False),
    Client("wandb", installed("wandb"), in_python(_WANDB), "wandb POST /files/alice/lab/.*/file_stream", prints=False),
)

# The lab's own authority is in the system's bundle; these programs bring bundles of their own.
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def settings(token: str, loss: int, path: str) -> str:
    """Shell text: the services of the lab in the place of the real ones, as a user points his programs elsewhere."""
    return f"""export PATH={path}:$PATH
export {" ".join(f"{name}={_BUNDLE}" for name in _TRUST)}
export SWANLAB_API_HOST={url_of("swanlab")}/api SWANLAB_WEB_HOST={url_of("swanlab")} SWANLAB_API_KEY={token}
export WANDB_BASE_URL={url_of("wandb")} WANDB_API_KEY={token} HF_ENDPOINT={url_of("hub")} LOSS={loss}
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 GIT_TERMINAL_PROMPT=0
"""
