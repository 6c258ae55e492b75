"""Checks of the endpoints that jobs talk to: trackers, hubs, package indexes, LLM APIs. Connects through the tunnel.

Each is asked for a connection and a TLS handshake, and no more: no request, no key of anybody's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hpcproxy import heard
from hpcproxy.doctor.finding import Check, Finding, bad, good, untried
from hpcproxy.doctor.patient import Patient
from hpcproxy.doctor.reach import Place, Stage, try_connection, try_tls

_ENDPOINTS = "endpoints"
# What it is called, where it is, and the variable by which its own client takes another address (its documentation).
ENDPOINTS: Sequence[tuple[str, str, str]] = (
    ("SwanLab", "https://api.swanlab.cn", "SWANLAB_API_HOST"),
    ("W&B", "https://api.wandb.ai", "WANDB_BASE_URL"),
    ("Hugging Face", "https://huggingface.co", "HF_ENDPOINT"),
    ("Hugging Face files", "https://cas-bridge.xethub.hf.co", ""),
    ("PyPI", "https://pypi.org", ""),
    ("PyPI files", "https://files.pythonhosted.org", ""),
    ("Anaconda", "https://conda.anaconda.org", ""),
    ("GitHub", "https://github.com", ""),
    ("OpenAI", "https://api.openai.com", "OPENAI_BASE_URL"),
    ("Anthropic", "https://api.anthropic.com", "ANTHROPIC_BASE_URL"),
    ("Gemini", "https://generativelanguage.googleapis.com", ""),
    ("DeepSeek", "https://api.deepseek.com", ""),
    ("OpenRouter", "https://openrouter.ai", ""),
)


def place_of(name: str, patient: Patient) -> Place:
    """Return where the endpoint `name` is for this account; raises ValueError for an address that is none."""
    _, url, variable = next(row for row in ENDPOINTS if row[0] == name)
    return Place.of(patient.account.environ.get(variable) or url if variable else url)


def _look(name: str, patient: Patient) -> Finding:
    if not patient.endpoints:
        return untried("--no-endpoints leaves it alone")
    variable = next(row[2] for row in ENDPOINTS if row[0] == name)
    try:
        place = place_of(name, patient)
    except ValueError as error:
        return bad(f"{variable}: {error}", f"unset {variable}")
    tunnel = patient.working_tunnel()
    reached = try_connection(tunnel, place)
    if reached.stage is Stage.DENIED:
        return untried(f"it is {reached.words}: that is a rule, and no failure")
    if reached.stage is not Stage.CONNECTED:
        return bad(f"{place}: {reached.words}", f"ask the admin of {heard.line(tunnel.jump or 'the jump host')}")
    wrong = try_tls(tunnel, place) if place.tls else ""
    return bad(wrong, "ask your site whether it intercepts TLS") if wrong else good("reached")


def _where(url: str, variable: str) -> str:
    return f"`{url.removeprefix('https://')}`" + (f", or what `{variable}` names," if variable else "")


CHECKS: tuple[Check[Patient], ...] = tuple(
    Check(
        name,
        _ENDPOINTS,
        f"Is {_where(url, variable)} reached, with a good certificate?",
        "ask the admin of your jump host",
        functools.partial(_look, name),
        ("tunnel",),
    )
    for name, url, variable in ENDPOINTS
)
