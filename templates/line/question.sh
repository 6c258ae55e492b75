# shellcheck shell=bash
# What an account's shell is asked once its files are read: the function is what our block defines.
command -v proxy_on >/dev/null 2>&1 && printf '%s\n' hpcproxy-block-was-read
