# shellcheck shell=dash
# What a login runs on a host: it does not depend on the login shell's language, and reads nobody's rc file; the shell in between may, and
# may print.
exec /bin/bash -p -s
