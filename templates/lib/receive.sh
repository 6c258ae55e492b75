# shellcheck shell=bash
# Brings this host to a version of our files, looks at it, takes it back a version or removes us.
#
#   action    look, apply (an archive of DIRECTORY-NUMBER/NAME on stdin), rollback, remove
#   $store    current/, previous/: manifest, tree and its sums of a version; owned: every path that was ever ours;
#             made: directories that we made
#
# Answers on stdout, each line with the token, so that what a .bashrc prints is not taken for ours:
#   file ACTION PATH · content PATH BASE64 · fact NAME VALUE · done changed|unchanged|would|failed TEXT
#
# Nothing is moved into place before all of it is here, checked, on disk and on the target's own file system; then each
# file by rename. The connection may be lost at any moment: from the lock on nobody needs to listen.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022

answer() {
    printf '%s %s\n' "$token" "$*" 2>/dev/null || :
}

finish() {
    if [[ -n $locked ]]; then rm -rf -- "$lock_file" "$store/next" ${staged[@]+"${staged[@]}"}; fi
    answer "done $1"
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
    locked=1
}

# Read manifest $1 into paths, digests, modes, owners.
read_manifest() {
    local digest mode owner path
    paths=() digests=() modes=() owners=()
    while read -r digest mode owner path; do
        paths+=("$path") digests+=("$digest") modes+=("$mode") owners+=("$owner")
    done 2>/dev/null <"$1"
}

write_manifest() {
    local i
    for i in "${!paths[@]}"; do printf '%s %s %s %s\n' "${digests[i]}" "${modes[i]}" "${owners[i]}" "${paths[i]}"; done
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
    changes=() gone=() owned=()
    for path in "${paths[@]}"; do wanted[$path]=1; done
    while read -r path; do
        [[ -n ${wanted[$path]-}${owned[$path]-} ]] || every+=("$path")
        owned[$path]=1
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

# Make `directories` and what is missing above them, and remember what was made.
make_directories() {
    local missing=() branch=() directory why
    local -A seen=()
    for directory in "${directories[@]}"; do
        branch=()
        while [[ ! -d $directory && -z ${seen[$directory]-} ]]; do
            seen[$directory]=1
            branch=("$directory" ${branch[@]+"${branch[@]}"})
            directory=${directory%/*}
            [[ -n $directory ]] || directory=/
        done
        missing+=(${branch[@]+"${branch[@]}"})
    done
    ((${#missing[@]})) || return 0
    printf '%s\n' "${missing[@]}" >>"$store/made" || fail "$store cannot be written"
    why=$(exec mkdir -m "$directory_mode" -- "${missing[@]}" 2>&1) || fail "a directory cannot be made: ${why%%$'\n'*}"
}

# Set `directories` to the different directories of `paths`, in their order.
find_directories() {
    local path
    local -A seen=()
    directories=()
    for path in "${paths[@]}"; do
        path=${path%/*}
        [[ -n ${seen[$path]-} ]] || directories+=("$path")
        seen[$path]=1
    done
}

# Set from[NUMBER] to where the files of directories[NUMBER] are to be renamed from, and `staged` to the directories that
# this takes: one below $store, or one beside the directory if that is on another file system. Never in one of them: slurmd
# and login shells read those whole.
find_bases() {
    local number device devices count=${#directories[@]} base parents=()
    local -A base_of=() used=()
    for number in "${!directories[@]}"; do
        base=${directories[number]%/*}
        parents+=("${base:-/}")
    done
    read -r -d '' -a devices < <(exec stat -c %d -- "$store" "${directories[@]}" "${parents[@]}" 2>/dev/null) || :
    ((${#devices[@]} == 2 * count + 1)) || fail 'a directory that was there is gone'
    base_of[${devices[0]}]=$store/stage
    for number in "${!directories[@]}"; do
        [[ -w ${directories[number]} ]] || fail "${directories[number]} cannot be written"
        device=${devices[number + 1]}
        if [[ -z ${base_of[$device]-} ]]; then
            [[ ${devices[number + 1 + count]} == "$device" ]] ||
                fail "${directories[number]} is a file system of its own; this cannot be changed in one step"
            base_of[$device]=${parents[number]%/}/.hpcproxy-new
        fi
        base=${base_of[$device]}
        from[number]=$base/$number
        [[ -n ${used[$base]-} ]] || staged+=("$base")
        used[$base]=1
    done
}

# Copy the tree $1 (DIRECTORY-NUMBER/NAME) to `from` and wait until all of it is on disk.
stage() {
    local number base why sources files=() debris=()
    make_directories
    find_bases
    for base in "${staged[@]}"; do
        [[ ! -e $base ]] || debris+=("$base")
    done
    ((${#debris[@]} == 0)) || rm -rf -- "${debris[@]}"
    for base in "${staged[@]}"; do
        sources=()
        for number in "${!from[@]}"; do
            [[ ${from[number]} != "$base/$number" ]] || sources+=("$1/$number")
        done
        if ((${#staged[@]} == 1)); then
            why=$(exec cp -a -T -- "$1" "$base" 2>&1)
        else # a file goes to no file system but its own
            why=$(mkdir -m 0700 -- "$base" 2>&1 && cp -a -t "$base" -- "${sources[@]}" 2>&1)
        fi || fail "${base%/*} cannot take the files: $(last_words "$why")"
    done
    for base in "${from[@]}"; do files+=("$base"/*); done
    why=$(exec sync -- "${files[@]}" 2>&1) || fail "not on disk: $(last_words "$why")"
}

# Move what is staged into place, in the manifest's order, and remove what is no longer wanted.
commit() {
    local number path why
    # From here on both versions' files are ours, also for whoever comes after a power cut.
    for path in "${paths[@]}"; do
        [[ -n ${owned[$path]-} ]] || printf '%s\n' "$path"
    done >>"$store/owned" || fail "$store cannot be written"
    for number in "${!directories[@]}"; do
        why=$(exec mv -f -t "${directories[number]}" -- "${from[number]}"/* 2>&1) || fail "${directories[number]}: $(last_words "$why")"
    done
    ((${#owned[@]})) || return 0 # the list is new, and complete
    ((${#gone[@]} == 0)) || rm -f -- "${gone[@]}"
    printf '%s\n' "${paths[@]}" >"$store/owned.new" && mv -f -- "$store/owned.new" "$store/owned"
}

# The archive on stdin becomes $store/next/tree, if every file in it is what the manifest says.
unpack() {
    local why owner=--same-owner
    ((EUID == 0)) || owner=--no-same-owner
    [[ ! -e $store/next ]] || rm -rf -- "$store/next"
    umask 077
    why=$(exec mkdir -p -- "$store/next/tree" 2>&1) || fail "$store cannot be made: $(last_words "$why")"
    umask 022
    why=$(exec tar -xzf - -C "$store/next/tree" "$owner" --same-permissions --touch 2>&1) || fail "$store cannot take the files: $(last_words "$why")"
    write_manifest >"$store/next/manifest" || fail "$store cannot be written"
}

# True if the files of $store/next/tree have the digests of the manifest. The list stays there: whoever wonders asks
# sha256sum himself.
check_tree() {
    local i number path
    for i in "${!paths[@]}"; do
        path=${paths[i]}
        for number in "${!directories[@]}"; do
            if [[ ${directories[number]} == "${path%/*}" ]]; then
                printf '%s  tree/%s/%s\n' "${digests[i]}" "$number" "${path##*/}"
                break
            fi
        done
    done >"$store/next/sums" || fail "$store cannot be written"
    cd "$store/next" && sha256sum --check --status sums
}

# The version in $store/next is in place; what was current is previous.
become() {
    find_directories
    check_tree || fail 'the archive did not arrive whole'
    cd /
    stage "$store/next/tree"
    commit
    if [[ -d $store/current ]]; then
        rm -rf -- "$store/previous"
        mv -- "$store/current" "$store/previous"
    fi
    mv -- "$store/next" "$store/current"
    sync -- "${directories[@]}" "$store"
}

apply() {
    take_lock
    compare
    if ((${#changes[@]} + ${#gone[@]} == 0)) && [[ -e $store/current/manifest ]]; then finish unchanged; fi
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
    take_lock
    [[ -r $store/previous/manifest ]] || fail 'no earlier version is kept here'
    read_manifest "$store/previous/manifest"
    compare
    say_changes
    rm -rf -- "$store/next"
    cp -a -- "$store/previous" "$store/next" || fail "$store cannot be written"
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
    for version in current previous next; do
        [[ -r $store/$version/manifest ]] || continue
        read_manifest "$store/$version/manifest"
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
    local locked='' changes=() gone=() directories=() from=() staged=()
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

# Whatever goes wrong in there, what is still to come is read to its end, or ssh would fail at random.
trap 'exec cat >/dev/null' EXIT
main
