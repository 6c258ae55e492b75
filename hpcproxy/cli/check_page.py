"""What `check` shows: the address that the internet sees, or what a far end has said and whose word that is."""

from __future__ import annotations

import json

from hpcproxy.account.checks import Said
from hpcproxy.account.verbs import Checked
from hpcproxy.cli.output import say

_BAD_STATUS = 400  # and above: it was asked, and says no


def show(checked: Checked, asked: str, *, as_json: bool) -> None:
    """Print what `check` has found; of the far end `asked` who it is that says no, if somebody does."""
    for line in checked.others:
        say(line)
    answer = checked.answer
    if as_json:
        shown = {name: value for name, value in vars(answer).items() if name != "body"}
        print(json.dumps({**shown, "url": checked.url, "jump": checked.jump, **({"asked": asked} if asked else {})}))
    elif isinstance(answer, Said):
        print(f"{answer.status}  {answer.latency_ms:.0f} ms  {asked} through {checked.jump}")
        if answer.status >= _BAD_STATUS:
            say(f"that is the far end's own answer, {answer.status}: the tunnel and the jump host are not the reason")
    else:
        print(f"{answer.address}  {answer.latency_ms:.0f} ms  through {checked.jump} at {checked.url}")
