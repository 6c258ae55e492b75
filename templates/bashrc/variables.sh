#!/bin/bash
# The variables that `proxy_on` of the bashrc.sh at $1 makes of those that are there, each with a NUL behind it; what goes wrong
# is said by proxy_on, and then the exit code is 69 (EX_UNAVAILABLE of sysexits(3)).
. "$1" || exit 69
proxy_on >/dev/null || exit 69
exec env -0
