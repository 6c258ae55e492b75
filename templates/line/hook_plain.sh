# shellcheck shell=dash
# The same with no brace, dollar, percent sign or backslash in it, for templates and here-documents.
if test -r PROLOGUE; then
    # shellcheck disable=SC1091 # it is the account's
    . PROLOGUE
else
    echo hpcproxy: no prologue.sh here, the job runs on without a way out >&2
fi
