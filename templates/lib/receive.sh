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
# Nothing is put in place before all of it is here, checked, on disk and on the target's own file system; then each file by
# rename, or by a link where nothing is yet. The connection may be lost at any moment: from the lock on nobody needs to
# listen. Every program that is run costs a host about as much as all that bash does here.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022

# Said at the end, in one go: each line by itself would be a packet.
answer() {
    said+="$token $*"$'\n'
}

finish() {
    ((${#debris[@]} == 0)) || rm -rf -- "${debris[@]}"
    answer "done $1"
    printf '%s' "$said" 2>/dev/null || :
    exit 0
}

# What a program says is wrong, of what it printed: the end of its first line.
last_words() {
    local line=${1%%$'\n'*}
    case $1 in *'No space left'* | *'Wrote only'*) line='No space left on device' ;; esac
    printf '%s' "${line##*: }"
}

fail() {
    finish "failed ${1//[[:cntrl:]]/ }"
}

# Keep two deployments apart. The lock file goes at the end, so a lock on one that is no longer there is none.
take_lock() {
    { exec 9>>"$lock_file"; } 2>/dev/null || fail "no lock can be made at $lock_file"
    flock -n 9 || fail 'another deployment is at work here'
    [[ $lock_file -ef /proc/self/fd/9 ]] || fail 'another deployment is at work here'
    debris=("$lock_file" "$store/stage" "$store/previous.new")
}

# Set `text` to all that file $1 holds; empty if it is not there.
read_all() {
    text=''
    IFS= read -r -d '' text 2>/dev/null <"$1" || :
}

# Read manifest $1 into paths, digests, modes, owners.
read_manifest() {
    local digest mode owner path
    paths=() digests=() modes=() owners=()
    while read -r digest mode owner path; do
        paths+=("$path") digests+=("$digest") modes+=("$mode") owners+=("$owner")
    done 2>/dev/null <"$1"
}

# Set `record` to the manifest of paths, digests, modes, owners.
make_record() {
    local i
    record=''
    for i in "${!paths[@]}"; do record+="${digests[i]} ${modes[i]} ${owners[i]} ${paths[i]}"$'\n'; done
}

# Set by_path[PATH] to "DIGEST MODE OWNER" as "$@" are now; a path that is no regular file is "other", one that is not
# there has no entry.
look_at() {
    local kind owner path digest present=() regular=()
    by_path=()
    for path; do
        if [[ -e $path || -L $path ]]; then present+=("$path"); fi
    done
    ((${#present[@]})) || return 0
    while read -r kind owner path; do
        by_path[$path]=other
        ((0x$kind >> 12 == 8)) || continue # S_IFREG, inode(7)
        regular+=("$path")
        printf -v "by_path[$path]" '%04o %s' "$((0x$kind & 07777))" "$owner"
    done < <(exec stat -c '%f %U %n' -- "${present[@]}" 2>/dev/null)
    ((${#regular[@]})) || return 0
    while read -r digest path; do by_path[$path]="$digest ${by_path[$path]}"; done < <(exec sha256sum -- "${regular[@]}")
}

# Set `changes` to the indexes of what differs and `gone` to paths that are ours and wanted no more; fail for a file that
# is somebody else's.
compare() {
    local i path strangers='' every=("${paths[@]}")
    local -A wanted=()
    changes=() gone=() owned=() mine=()
    for path in "${paths[@]}"; do wanted[$path]=1; done
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
        if [[ -n ${by_path[$path]-} && -z ${owned[$path]-} && ${by_path[$path]} != "${digests[i]} "* ]]; then
            answer "file foreign $path"
            strangers+=" $path"
        fi
    done
    for path in "${!owned[@]}"; do
        if [[ -z ${wanted[$path]-} && -n ${by_path[$path]-} ]]; then gone+=("$path"); fi
    done
    [[ -z $strangers ]] || fail "somebody else's file is in the way, kept as it is:$strangers"
}

say_changes() {
    local i path verb
    for i in ${changes[@]+"${changes[@]}"}; do
        path=${paths[i]} verb=create
        [[ -z ${by_path[$path]-} ]] || verb=change
        answer "file $verb $path"
        if [[ -n $want_content && -f $path ]]; then answer "content $path $(base64 -w 0 <"$path")"; fi
    done
    for path in ${gone[@]+"${gone[@]}"}; do answer "file remove $path"; done
}

apply() {
    local text
    take_lock
    compare
    make_record
    read_all "$store/manifest"
    if ((${#changes[@]} + ${#gone[@]} == 0)) && [[ $text == "$record" ]]; then finish unchanged; fi
    unpack
    say_changes
    become
    finish changed
}

look() {
    compare
    say_changes
    facts
    if ((${#changes[@]} + ${#gone[@]})); then finish would; fi
    finish unchanged
}

rollback() {
    local text why
    take_lock
    [[ -s $store/previous/found ]] || fail 'no earlier version is kept here'
    read_manifest "$store/previous/found"
    read_all "$store/previous/manifest"
    record=$text
    compare
    say_changes
    [[ ! -e $store/stage ]] || rm -rf -- "$store/stage"
    why=$(exec cp -a -T -- "$store/previous/tree" "$store/stage" 2>&1) || fail "$store cannot take the files: $(last_words "$why")"
    become
    finish changed
}

# What a deployer wants to know of a host, a line each.
facts() {
    local name version
    for name in python3 ssh; do
        version=$("$name" -V 2>&1) || version=missing
        answer "fact $name ${version//[[:cntrl:]]/ }"
    done
    answer "fact bash $BASH_VERSION"
    printf -v version '%(%s)T' -1
    answer "fact clock $version"
    if [[ -r $store/previous/manifest ]]; then answer 'fact previous yes'; fi
}

# End the ways out of jobs that run here: their Epilog is about to go. URG and TERM as there: at once, and one that is only
# beginning too.
end_holders() {
    local record pid since
    for record in "$run_base"/holders/*.*[0-9]; do
        if read -r pid since 2>/dev/null <"$record" && start_time "$pid" && [[ $started == "$since" ]]; then
            kill -URG "$pid"
            kill -TERM "$pid"
        fi
    done
}

# Fail if Slurm's running configuration would miss what goes: an empty glob drains nodes, a missing TaskProlog cancels
# every task. Where Slurm cannot be asked there is nothing that it would run.
refuse_while_needed() {
    local name value drop_in others
    while IFS='= ' read -r name value; do
        case $name in
            TaskProlog) [[ $value != "$task_prolog" ]] || fail "slurm.conf still says TaskProlog=$value; take that out first" ;;
            Prolog* | Epilog*)
                for drop_in in ${drop_ins[@]+"${drop_ins[@]}"}; do
                    [[ $value == "$drop_in" || $value == "${drop_in%/*}/"* ]] || continue
                    others=("${drop_in%/*}"/*)
                    if [[ ${#others[@]} == 1 && ${others[0]} == "$drop_in" ]]; then
                        fail "slurm.conf still says ${name%%\[*}=$value, where nothing would be left; take that out first"
                    fi
                done
                ;;
        esac
    done < <(timeout 10 scontrol show config 2>/dev/null)
}

# Remove every file that is still as we left it, hooks first, then the directories that we made.
remove() {
    local i kept='' known=() path version
    local -A ours=() listed=()
    take_lock
    [[ -d $store ]] || finish unchanged
    refuse_while_needed
    for version in manifest next; do
        [[ -r $store/$version ]] || continue
        read_manifest "$store/$version"
        for i in "${!paths[@]}"; do
            ours[${digests[i]}]=1
            if [[ -z ${listed[${paths[i]}]-} ]]; then known+=("${paths[i]}"); fi
            listed[${paths[i]}]=1
        done
    done
    ((${#known[@]})) && look_at "${known[@]}"
    for ((i = ${#known[@]} - 1; i >= 0; i--)); do
        path=${known[i]}
        [[ -n ${by_path[$path]-} ]] || continue
        if [[ -z ${ours[${by_path[$path]%% *}]-} ]]; then
            answer "file foreign $path"
            kept+=" $path"
            continue
        fi
        rm -f -- "$path" || fail "$path cannot be removed"
        answer "file remove $path"
    done
    end_holders
    remove_made
    rm -rf -- "$store"
    if [[ -w $run_base ]]; then rm -rf -- "$run_base"; fi
    [[ -z $kept ]] || finish "failed changed by somebody else and kept:$kept"
    finish changed
}

remove_made() {
    local made=() i
    [[ -r $store/made ]] || return 0
    mapfile -t made <"$store/made"
    for ((i = ${#made[@]} - 1; i >= 0; i--)); do rmdir -- "${made[i]}" 2>/dev/null || :; done
}

main() {
    local said='' record='' changes=() gone=() mine=() directories=() missing=() debris=()
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

# Whatever goes wrong in there, what is still to come is read to its end, or ssh would fail at random. Mostly that is nothing.
trap 'IFS= read -r -N 1 _ && exec cat >/dev/null' EXIT
main
