"""What a site's roll-out has said to this job, where its TaskProlog found no tunnel. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hpcproxy import heard
from hpcproxy.errors import Reason

ADVICE = "it is your site's, ask its admin"


def why_none(environ: Mapping[str, str]) -> Reason | None:
    """Return why the site has given this job no tunnel on this node; None if it has said nothing of that.

    What the TaskProlog says is `NODE LAYER WORDS` (docs/configuration.md, HPCPROXY_ERROR).
    """
    node, layer, words = (*environ.get("HPCPROXY_ERROR", "").split(" ", 2), "", "", "")[:3]
    return Reason(heard.line(layer), heard.line(f"{node}: {words}"), ADVICE, permanent=True) if words else None
