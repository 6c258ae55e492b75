# shellcheck shell=dash
# The same as root, for any login shell; `exec` so that nothing of it stays in between. The prompt says when to send the password.
exec sudo -S -p 'TOKEN password ' -- /bin/bash -p -c 'printf "%s root\n" TOKEN; exec /bin/bash -p -s'
