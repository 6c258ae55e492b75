# shellcheck shell=bash
# What a program says is wrong, of what it printed: the end of its first line.
last_words() {
    local line=${1%%$'\n'*}
    case $1 in *'No space left'* | *'Wrote only'*) line='No space left on device' ;; esac
    printf '%s' "${line##*: }"
}
