"""The agent that runs on compute nodes: holds ssh, and one port that speaks HTTP and SOCKS for this job's user.

Python 3.6 and later, standard library only; imports nothing of the rest of hpcproxy. `build.build` makes one file of
it, `agent.pyz`, which is started as `python3 -I agent.pyz hold ...`. Its map: docs/agent.md.
"""

VERSION = "1"
