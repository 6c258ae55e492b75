"""Language models: libraries, and the agents that people run in a job."""

from __future__ import annotations

from .clients import Client, url_of
from .further import Further, python

_LITELLM = f"""import litellm
stream = litellm.completion(model="openai/lab", api_base="{url_of("openai")}/v1", api_key="lab", stream=True,
                            timeout=20, messages=[dict(role="user", content="the token?")])
print("".join(piece.choices[0].delta.content or "" for piece in stream))
"""
_LANGCHAIN = f"""from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="lab", base_url="{url_of("openai")}/v1", api_key="lab", timeout=20)
print("".join(str(piece.content) for piece in model.stream("the token?")))
"""
_GENAI = f"""from google import genai
client = genai.Client(api_key="lab", http_options=dict(base_url="{url_of("gemini")}"))
print("".join(part.text for part in client.models.generate_content_stream(model="lab", contents="the token?")))
"""
_HOME = "mkdir home && export HOME=$work/home\n"
_CLAUDE = f"""{_HOME}export ANTHROPIC_BASE_URL={url_of("anthropic")} ANTHROPIC_API_KEY=lab
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
timeout 60 claude -p --model lab 'the token?' </dev/null
"""
_GEMINI = f"""{_HOME}export GOOGLE_GEMINI_BASE_URL={url_of("gemini")} GEMINI_API_KEY=lab GEMINI_CLI_TRUST_WORKSPACE=true
mkdir home/.gemini
echo '{{"security": {{"auth": {{"selectedType": "gemini-api-key"}}}}}}' >home/.gemini/settings.json
timeout 90 gemini -m lab -p 'the token?' </dev/null
"""
_OPENCODE = f"""{_HOME}cat >opencode.json <<'END'
{{"provider": {{"lab": {{"npm": "@ai-sdk/openai-compatible", "models": {{"lab": {{"name": "lab"}}}},
  "options": {{"baseURL": "{url_of("openai")}/v1", "apiKey": "lab"}}}}}}, "model": "lab/lab", "small_model": "lab/lab"}}
END
timeout 90 opencode run -m lab/lab 'the token?' </dev/null
"""
_AIDER = f"""{_HOME}export OPENAI_API_BASE={url_of("openai")}/v1 OPENAI_API_KEY=lab
timeout 90 aider --model openai/lab --no-git --no-check-update --no-show-model-warnings --no-show-release-notes \\
    --analytics-disable --yes-always --message 'the token?' </dev/null
"""


def _codex(over: str, websocket: str) -> Further:
    method = "GET" if websocket == "true" else "POST"
    script = f"""{_HOME}export CODEX_HOME=$work/home OPENAI_API_KEY=lab
cat >home/config.toml <<'END'
model = "lab"
model_provider = "lab"
[model_providers.lab]
name = "lab"
base_url = "{url_of("codex")}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
supports_websockets = {websocket}
stream_max_retries = 0
request_max_retries = 0
END
timeout 90 codex exec --skip-git-repo-check 'the token?' </dev/null
"""
    client = Client(f"codex, over {over}", "codex --version", script, f"codex {method} /v1/responses")
    return Further(client, npm=("@openai/codex",), says="(?i)error")


LLM = (
    python("litellm, streaming", _LITELLM, "openai POST /v1/chat/completions", "litellm"),
    python("langchain-openai, streaming", _LANGCHAIN, "openai POST /v1/chat/completions", "langchain-openai"),
    python("google-genai, streaming", _GENAI, "gemini POST /v1/models/lab:streamGenerateContent", "google-genai"),
    Further(
        Client("Claude Code", "claude --version", _CLAUDE, "anthropic POST /v1/messages"),
        npm=("@anthropic-ai/claude-code",),
    ),
    _codex("HTTP", "false"),
    _codex("a WebSocket", "true"),
    Further(
        Client("Gemini CLI", "gemini --version", _GEMINI, "gemini POST /v1beta/models/[^/]+:streamGenerateContent"),
        npm=("@google/gemini-cli",),
        says="(?i)error",
    ),
    Further(
        Client("opencode", "opencode --version", _OPENCODE, "openai POST /v1/chat/completions"),
        npm=("opencode-ai",),
        says="(?i)error",
    ),
    Further(
        Client("aider", "aider --version", _AIDER, "openai POST /v1/chat/completions"),
        ("aider-chat",),
        says="(?i)error",
    ),
)
