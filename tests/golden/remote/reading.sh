#!/bin/bash
# hpcproxy edit.sh: sent to a host with each command, never installed.
token=TOKEN
paths=(
    '/a b'
)
digests=(
    look
)
befores=(
    look
)
command=(
    true
    'it'"'"'s'
)
trial=()

#= lib/host/last_words.sh

#= lib/host/edit.sh
