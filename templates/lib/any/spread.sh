# shellcheck shell=bash
# Whose turn it is.

# Set `spread_ms` to the time over which $1 nodes spread their first logins to $2 jump hosts, logins_per_s to each; none
# for few nodes, or where nobody logs in. The agent reckons the same (node/upstream/candidate.py).
spread() {
    spread_ms=0
    # In an arithmetic expression a value is a program: `a[$(cmd)]` runs cmd.
    [[ $1 =~ ^[1-9][0-9]{0,5}$ && $2 =~ ^[0-9]{1,3}$ ]] || return 0
    if (($1 > 8 && $2)); then spread_ms=$(($1 * 1000 / (logins_per_s * $2))); fi
    if ((spread_ms > 120000)); then spread_ms=120000; fi
}
