# shellcheck shell=bash
# Reads or changes files that are somebody's, for whoever decides elsewhere what their bytes shall be.
#
#   digests[i] is `look` to read paths[i], `none` to remove it, else the SHA-256 of its new bytes, which come on stdin as a
#   tar archive (NUMBER for each). befores[i] is the SHA-256 it must have now, `none` if it must not be there: a file that
#   somebody has changed meanwhile is left alone. Then `command`, if there is one, is run. `trial` is run with
#   SLURM_CONF naming each new file before it takes the old one's place, which it does only if that succeeds.
#
# Answers on stdout, each line with the token: content PATH BASE64 · fact NAME VALUE · done changed|unchanged|failed TEXT

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
elsewhere_s=6

answer() {
    printf '%s %s\n' "$token" "$*" 2>/dev/null || :
}

finish() {
    rm -rf -- "$work"
    answer "done $1"
    exit 0
}

fail() {
    finish "failed ${1//[[:cntrl:]]/ }"
}

# Set `digest` to what the file $1 has now, or `none`.
digest_of() {
    digest=none
    [[ -e $1 ]] || return 0
    [[ -f $1 ]] || fail "$1 is no regular file"
    read -r digest _ < <(sha256sum <"$1") || fail "$1 cannot be read"
}

# Replace the file behind $1, which may be a link, by the file $2, with its old mode, owner and ACL, by rename. What Slurm
# is to read is tried by Slurm first, beside the old one, where what it includes is found.
replace() {
    local target new why tries=0
    target=$(readlink -f -- "$1") || fail "$1 leads nowhere"
    # A name of this process's own: a directory that hosts share is changed by several side by side. What a killed one has
    # left of this host's goes; who lives is at work.
    for new in "$target.hpcproxy-new.$HOSTNAME".*; do [[ -d /proc/${new##*.} ]] || rm -f -- "$new"; done
    new=$target.hpcproxy-new.$HOSTNAME.$BASHPID
    if [[ -e $target ]]; then
        # cp gives up on a file that another host puts in place meanwhile.
        until why=$(cp -p --attributes-only --preserve=all --no-preserve=timestamps -T -- "$target" "$new" 2>&1); do
            if [[ $why == *'was replaced while being copied'* ]] && ((tries++ < 20)); then continue; fi
            rm -f -- "$new" && fail "$1 cannot be written: $(last_words "$why")"
        done
    else
        { : >"$new" && chmod 0644 -- "$new"; } 2>/dev/null || fail "$1 cannot be written: ${new%/*} is not writable"
    fi
    why=$( (cat -- "$2" >"$new") 2>&1) || { rm -f -- "$new" && fail "$1 cannot be written: $(last_words "$why")"; }
    if ((${#trial[@]})); then
        why=$(SLURM_CONF=$new "${trial[@]}" 2>&1 </dev/null) ||
            { rm -f -- "$new" && fail "Slurm does not take $1 as it would be: ${why%%$'\n'*}"; }
    fi
    why=$(sync -- "$new" 2>&1 && mv -f -T -- "$new" "$target" 2>&1) || { rm -f -- "$new" && fail "$1: $(last_words "$why")"; }
}

# True if the file $1 has the digest $2 by now, though nothing can be written here: another host, which has the same file and
# may write it, is given some seconds for it.
is_changed_elsewhere() {
    local target digest deadline=$((SECONDS + elsewhere_s))
    target=$(readlink -f -- "$1") || return 1
    [[ ! -w ${target%/*} ]] || return 1
    while ((SECONDS < deadline)); do
        digest_of "$1"
        [[ $digest != "$2" ]] || return 0
        sleep 0.2
    done
    return 1
}

change_all() {
    local i digest
    for i in "${!paths[@]}"; do
        digest_of "${paths[i]}"
        [[ $digest != "${digests[i]}" ]] || continue
        [[ $digest == "${befores[i]}" ]] || fail "${paths[i]} was changed by somebody else meanwhile and is left as it is"
        if [[ ${digests[i]} == none ]]; then
            rm -f -- "${paths[i]}" || fail "${paths[i]} cannot be removed"
        else
            [[ $(sha256sum <"$work/$i") == "${digests[i]} "* ]] || fail 'the archive did not arrive whole'
            if is_changed_elsewhere "${paths[i]}" "${digests[i]}"; then continue; fi
            replace "${paths[i]}" "$work/$i"
        fi
        word=changed
    done
}

main() {
    local i digest word=unchanged said work=''
    trap '' HUP PIPE INT TERM
    paths=("${paths[@]/#\~\//$HOME/}")
    for i in "${!paths[@]}"; do
        [[ ${digests[i]} == look ]] || continue
        digest_of "${paths[i]}"
        if [[ $digest != none ]]; then answer "content ${paths[i]} $(base64 -w 0 <"${paths[i]}")"; fi
    done
    answer "fact home $HOME"
    answer "fact clock $(date +%s)"
    if [[ ${digests[0]-look} != look ]]; then
        work=$(mktemp -d) || fail 'no temporary directory can be made'
        tar -xzf - -C "$work" 2>/dev/null || fail "$work cannot take the files"
        change_all
    fi
    if ((${#command[@]})); then
        if said=$("${command[@]}" 2>&1 </dev/null); then
            answer "content output $(base64 -w 0 <<<"$said")"
        else
            said=${said##*$'\n'}
            fail "${said:0:200}"
        fi
    fi
    finish "$word"
}

(main)
exec cat >/dev/null
