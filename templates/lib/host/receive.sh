# shellcheck shell=bash
# Brings this host to a version of our files, looks at it, takes it back a version or removes us.
#
#   action    look, apply (an archive on stdin: every file by its whole path, below $store/stage), rollback, remove
#   $store    manifest: what is in place, a line for each file: DIGEST MODE OWNER PATH
#             next: the manifest to be, from before the first file is put in place until it is the manifest
#             previous/: what was in place before: tree/; found, a manifest of that as it was found; manifest, our record
#             of then; for, the manifest that came in its place
#             owned: every path that was ever ours; made: directories that we made; stage/: files on their way
#
# Answers on stdout, each line with the token, so that what a .bashrc prints is not taken for ours:
#   file ACTION PATH · content PATH BASE64 · fact NAME VALUE · done changed|unchanged|would|failed TEXT
#
# Nothing is put in place before all of it is here, checked, on disk and on the target's own file system; then each file
# by rename, or by a link where nothing is yet. The connection may be lost at any moment: from the lock on nobody needs
# to listen. Every program that is run costs a host about as much as all that bash does here.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022

# Said at the end, in one go: each line by itself would be a packet.
answer() {
    said+="$token $*"$'\n'
}

# Say what was to be said, and end. The lock is the process's, so it holds until `rm` is through, and so does the
# connection. Its file goes last: from then on another deployment may be at work in the store.
finish() {
    answer "done $1"
    printf '%s' "$said" 2>/dev/null || :
    ((${#debris[@]})) || exit 0
    read_on
    exec rm -rf -- "${debris[@]}" "$lock"
}

# Whatever goes wrong, what is still to come is read to its end, or ssh would fail at random. Mostly there is nothing.
read_on() {
    if IFS= read -r -N 1 _; then cat >/dev/null; fi
}

fail() {
    finish "failed ${1//[[:cntrl:]]/ }"
}

# Set by_path[PATH] to "DIGEST MODE OWNER" as "$@" are now; a path that is no regular file is "other", one that is not
# there has no entry.
look_at() {
    local kind owner path digest mode present=() regular=()
    by_path=()
    for path; do
        if [[ -e $path || -L $path ]]; then present+=("$path"); fi
    done
    ((${#present[@]})) || return 0
    while read -r kind owner path; do
        by_path[$path]=other
        ((0x$kind >> 12 == 8)) || continue # S_IFREG, inode(7)
        regular+=("$path")
        # By an assignment: printf -v would read the name, path and all, as an expression.
        printf -v mode '%04o' "$((0x$kind & 07777))"
        by_path[$path]="$mode $owner"
    done < <(exec stat -c '%f %U %n' -- "${present[@]}" 2>/dev/null)
    ((${#regular[@]})) || return 0
    while read -r digest path; do by_path[$path]="$digest ${by_path[$path]}"; done < <(exec sha256sum -- "${regular[@]}" 2>/dev/null)
    for path in "${regular[@]}"; do # one that has gone meanwhile: another host may have the same directory
        [[ ${by_path[$path]} == *' '*' '* || -e $path ]] || by_path[$path]=''
    done
}

# True if file $1 says itself that it is ours, or lies where only ours are.
is_marked() {
    [[ -f $1 && ! -L $1 ]] || return
    [[ $1 == "$own_directory"/* ]] || grep -q -a 'hpcproxy.*a change belongs' -- "$1"
}

# Set `changes` to the indexes of what differs and `gone` to paths that are ours and wanted no more; fail for a file
# that is somebody else's.
compare() {
    local i path strangers='' every=("${paths[@]}")
    local -A wanted=()
    changes=() gone=() owned=() mine=()
    for path in "${paths[@]}" ${others[@]+"${others[@]}"}; do wanted[$path]=1; done
    while read -r path; do
        [[ -n ${wanted[$path]-}${owned[$path]-} ]] || every+=("$path")
        owned[$path]=1
        mine+=("$path")
    done 2>/dev/null <"$store/owned"
    look_at "${every[@]}"
    for i in "${!paths[@]}"; do
        path=${paths[i]}
        [[ ${by_path[$path]-} == "${digests[i]} ${modes[i]} ${owners[i]}" ]] && continue
        changes+=("$i")
        [[ -n ${by_path[$path]-} && -z ${owned[$path]-} && ${by_path[$path]} != "${digests[i]} "* ]] || continue
        if is_marked "$path"; then # our record is gone, with a disk or an image
            owned[$path]=1
            mine+=("$path")
        else
            answer "file foreign $path"
            strangers+=" $path"
        fi
    done
    for path in "${!owned[@]}"; do
        if [[ -z ${wanted[$path]-} && -n ${by_path[$path]-} ]]; then gone+=("$path"); fi
    done
    [[ -z $strangers ]] || fail "somebody else's file is in the way, kept as it is:$strangers"
}

# True if what file $1 holds may leave this host: it is none of the secrets, nobody has shut it more than $2, as ours
# is, and it is not longer than what anybody reads. In doubt it stays.
may_be_shown() {
    local path=$1 wanted=$2 mode secret
    for secret in ${secrets[@]+"${secrets[@]}"}; do [[ $path != "$secret" ]] || return 1; done
    [[ -f $path && ${by_path[$path]-} == *' '*' '* ]] || return 1
    mode=${by_path[$path]#* }
    ((0$wanted & 044 & ~0${mode%% *})) && return 1
    (($(exec stat -L -c %s -- "$path") <= 262144)) 2>/dev/null
}

say_changes() {
    local i path verb
    for i in ${changes[@]+"${changes[@]}"}; do
        path=${paths[i]} verb=create
        [[ -z ${by_path[$path]-} ]] || verb=change
        answer "file $verb $path"
        if [[ -n $want_content ]] && may_be_shown "$path" "${modes[i]}"; then
            answer "content $path $(base64 -w 0 <"$path")"
        fi
    done
    for path in ${gone[@]+"${gone[@]}"}; do answer "file remove $path"; done
}

look() {
    compare
    say_changes
    facts
    if ((${#changes[@]} + ${#gone[@]})); then finish would; fi
    finish unchanged
}

# Say who listens at all addresses of this host at the port of tunnels: every job's address is among them.
name_stranger() {
    local hex where state uid table _
    ((port)) || return 0
    printf -v hex '%04X' "$port"
    for table in tcp tcp6; do
        while read -r _ where _ state _ _ _ uid _; do
            # Listening sockets come first, and of a table of thousands bash would be minutes reading the rest.
            [[ $state == 0A || $state == st ]] || break
            [[ $state == 0A && $where =~ ^0+:$hex$ ]] || continue
            answer "fact taken port $port is uid $uid's at all addresses"
            return 0
        done 2>/dev/null <"/proc/net/$table"
    done
    return 0
}

# What a deployer wants to know of a host, a line each.
facts() {
    local name version
    for name in python3 ssh; do
        version=$("$name" -V 2>&1) || version=missing
        answer "fact $name ${version//[[:cntrl:]]/ }"
    done
    # Root's only: the firewall is his Prolog's.
    if ((EUID == 0)) && ! hash nft 2>/dev/null; then answer 'fact nft missing'; fi
    if ((EUID == 0)) && ! can_have_group; then answer 'fact cgroup missing'; fi
    name_stranger
    answer "fact bash $BASH_VERSION"
    read -r version < <(exec env --version 2>&1) || version=unknown
    answer "fact coreutils ${version//[[:cntrl:]]/ }"
    read -r version </proc/sys/kernel/osrelease || version=unknown
    answer "fact kernel $version"
    printf -v version '%(%s)T' -1
    answer "fact clock $version"
    if [[ -n $slurm_conf ]]; then
        if [[ -e $slurm_conf ]]; then answer 'fact conf own'; else answer 'fact conf none'; fi
    fi
    if [[ -r $store/previous/manifest ]]; then answer 'fact previous yes'; fi
}

main() {
    local said='' lock='' changes=() gone=() mine=() others=() debris=()
    if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 402)); then finish "failed bash $BASH_VERSION is too old, 4.2 is needed"; fi
    local -A by_path=() owned=()
    trap '' HUP PIPE INT TERM
    cd / || exit 1
    case $action in
        apply) apply ;;
        look) look ;;
        rollback) rollback ;;
        remove) remove ;;
    esac
    fail "no action $action"
}

trap read_on EXIT
main
