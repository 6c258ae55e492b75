# shellcheck shell=bash
# The line that a host reads first from its stdin, with one more for each script behind it (part.sh), which has
# what stands here as empty. `read -N` counts characters, so bytes in this locale, and is older than all that we run on.
((BASH_VERSINFO[0] > 3)) || {
    echo "bash $BASH_VERSION is too old, 4.2 is needed" >&2
    exit
}
LC_ALL=C
hpcproxy_facts=
