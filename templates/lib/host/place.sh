# shellcheck shell=bash
# A version of our files is put in place of another, for receive.sh, which says what is where.

elsewhere=elsewhere # in place of a digest: another host has what was there

# Set `text` to all that file $1 holds; empty if it is not there.
read_all() {
    text=''
    IFS= read -r -d '' text 2>/dev/null <"$1" || :
}

# Set `record` to the manifest of paths, digests, modes, owners.
make_record() {
    local i
    record=''
    for i in "${!paths[@]}"; do record+="${digests[i]} ${modes[i]} ${owners[i]} ${paths[i]}"$'\n'; done
}

# Set `directories` to the different directories of `paths`, in their order, and `missing` to those that are not there yet
# and what is missing above them.
find_directories() {
    local path directory branch
    local -A seen=() absent=()
    directories=() missing=()
    for path in "${paths[@]}"; do
        directory=${path%/*}
        [[ -z ${seen[$directory]-} ]] || continue
        seen[$directory]=1
        directories+=("$directory")
        branch=()
        while [[ -n $directory && ! -d $directory && -z ${absent[$directory]-} ]]; do
            absent[$directory]=1
            branch=("$directory" ${branch[@]+"${branch[@]}"})
            directory=${directory%/*}
        done
        missing+=(${branch[@]+"${branch[@]}"})
    done
}

# The archive on stdin becomes $store/stage.
unpack() {
    local why owner=--same-owner
    ((EUID == 0)) || owner=--no-same-owner
    [[ ! -e $store/stage ]] || rm -rf -- "$store/stage"
    umask 077 # for $store and what is missing above it, which the archive does not name
    why=$(exec tar -xf - -C / "$owner" --same-permissions --touch 2>&1 < <(exec gzip -dc 2>/dev/null)) ||
        fail "$store cannot take the files: $(last_words "$why")"
    umask 022
}

# Set `others` to those of `mine` that another host, which has the same directory, has brought to the new version already, by
# our record `text` of what we had: what was there before is for that host to bring back.
find_others() {
    local i digest path
    local -A had=()
    while read -r digest _ _ path; do [[ -z $path ]] || had[$path]=$digest; done <<<"$text"
    for i in "${!paths[@]}"; do
        path=${paths[i]}
        [[ ${by_path[$path]-} == "${digests[i]} "* && -n ${had[$path]-} && ${had[$path]} != "${digests[i]}" ]] || continue
        others+=("$path")
    done
}

# Keep what is in place, as it is, and our record of it, for a rollback. Not if an attempt was cut off since the last time:
# what is there now may be a mixture, and what was there before that is kept.
keep() {
    local path text why aim digest found='' there=() new=$store/previous.new
    local -A known=() copied=()
    [[ -e $store/manifest ]] || return 0
    read_all "$store/previous/for"
    aim=$text
    read_all "$store/manifest"
    if [[ ! -e $store/previous/for || $aim == "$text" ]]; then
        find_others
        for path in ${others[@]+"${others[@]}"}; do known[$path]=1; done
        for path in "${mine[@]}"; do
            [[ ${by_path[$path]-} == *' '* && -z ${known[$path]-} ]] || continue # it is not there, or no regular file
            there+=("${path#/}")
        done
        [[ ! -e $new ]] || rm -rf -- "$new"
        why=$(umask 077 && mkdir -p -- "$new/tree" 2>&1) || fail "$store cannot be written: $(last_words "$why")"
        if ((${#there[@]})); then
            why=$(exec cp -a --parents -t "$new/tree" -- "${there[@]}" 2>&1) ||
                fail "$store cannot take what is here: $(last_words "$why")"
            while read -r digest path; do
                path=/$path
                copied[$path]=$digest
            done < <(cd "$new/tree" && exec sha256sum -- "${there[@]}")
        fi
        for path in ${there[@]+"${there[@]}"}; do # another host may have been quicker than `cp`
            path=/$path
            if [[ ${copied[$path]} == "${by_path[$path]%% *}" ]]; then
                found+="${by_path[$path]} $path"$'\n'
            else
                others+=("$path")
            fi
        done
        for path in ${others[@]+"${others[@]}"}; do found+="$elsewhere - - $path"$'\n'; done
        { printf '%s' "$found" >"$new/found" && printf '%s' "$text" >"$new/manifest"; } || fail "$store cannot be written"
        rm -rf -- "$store/previous"
        mv -- "$new" "$store/previous"
    fi
    printf '%s' "$record" >"$store/previous/for" || fail "$store cannot be written"
}

# What is in $store/stage is put in place, if it has the digests of paths and digests; `record` is the manifest from then on.
become() {
    local i path why list files=() sums='' news='' made='' directories=() missing=()
    for i in "${!paths[@]}"; do
        path=${paths[i]}
        files+=("$store/stage$path")
        sums+=$'\n'"${digests[i]}  $store/stage$path"
        [[ -n ${owned[$path]-} ]] || news+=$path$'\n'
    done
    [[ $'\n'$(exec sha256sum -- "${files[@]}" 2>&1) == "$sums" ]] || fail 'the archive did not arrive whole'
    find_directories
    keep
    # From here on both versions' files are ours, also for whoever comes after a power cut.
    for path in ${missing[@]+"${missing[@]}"}; do made+=$path$'\n'; done
    {
        printf '%s' "$record" >"$store/next" && printf '%s' "$news" >>"$store/owned" && printf '%s' "$made" >>"$store/made"
    } 2>/dev/null || fail "$store cannot be written"
    why=$(exec sync -- "${files[@]}" "$store/next" "$store/owned" "$store/made" 2>&1) || fail "not on disk: $(last_words "$why")"
    link || move
    if ((${#owned[@]})); then # else the list is new, and complete
        ((${#gone[@]} == 0)) || rm -f -- "${gone[@]}"
        printf -v list '%s\n' "${paths[@]}"
        for path in ${others[@]+"${others[@]}"}; do
            [[ $'\n'$list == *$'\n'"$path"$'\n'* ]] || list+=$path$'\n'
        done
        printf '%s' "$list" >"$store/owned.new" && mv -f -- "$store/owned.new" "$store/owned"
    fi
    printf '%s' "$record" 2>/dev/null >"$store/manifest" || fail "$store cannot be written"
    debris+=("$store/next")
}

# True if every file is in place by a link from $store/stage, for a host that has none of them: one program for all. What a
# power cut in the next seconds may undo is the end of the list, the hooks; what is left without them does nothing.
link() {
    local path i
    ((${#by_path[@]} == 0)) || return
    if (cd "$store/stage" && exec cp -l --parents -t / -- "${paths[@]#/}" 2>/dev/null); then return; fi
    for path in "${paths[@]}"; do # another file system, or none that has links, or one that is full or read-only
        if [[ $path -ef $store/stage$path ]]; then rm -f -- "$path"; fi
    done
    look_at "${paths[@]}" # another host may have put the same into a directory that both have
    for i in "${!paths[@]}"; do
        path=${paths[i]}
        [[ -z ${by_path[$path]-} || ${by_path[$path]} == "${digests[i]} "* ]] || fail "somebody else has just made $path"
    done
    return 1
}

# Set `directories` to those in which something changes; what is missing of them is made.
make_directories() {
    local i path files=()
    local -A changed=()
    find_directories
    if ((${#missing[@]})); then # -p, for another host that shares one of them may be first
        why=$(exec mkdir -p -m "$directory_mode" -- "${missing[@]}" 2>&1) ||
            fail_at "${missing[0]}" "a directory cannot be made: ${why%%$'\n'*}"
    fi
    # What is right already needs no directory that can be written.
    for i in ${changes[@]+"${changes[@]}"}; do changed[${paths[i]%/*}]=1; done
    files=("${directories[@]}") directories=()
    for path in "${files[@]}"; do [[ -z ${changed[$path]-} ]] || directories+=("$path"); done
}

# Set `real` and `parents` to where `directories` and what is above them really are, and `mounts` to the file systems that
# $store and they lie on.
find_mounts() {
    local path count=${#directories[@]}
    for path in "${directories[@]}"; do # one may be a link to another file system
        path=$(cd -P -- "$path" && printf '%s' "$PWD") || fail "$path leads nowhere"
        real+=("$path")
        path=${path%/*}
        parents+=("${path:-/}")
    done
    # A rename fails between two mounts of one file system too, and `mv` would copy.
    mapfile -t mounts < <(exec stat -c '%d %m' -- "$store" "${real[@]}" "${parents[@]}" 2>/dev/null)
    ((${#mounts[@]} == 2 * count + 1)) || fail 'a directory that was there is gone'
}

# What goes to directory number $1 is on its file system: `from` is where then, and `copies` what has been copied there.
bring_near() {
    local number=$1 path base why count=${#directories[@]}
    path=${directories[number]}
    [[ -w $path ]] || fail_at "$path" "$path cannot be written"
    from[number]=$store/stage$path
    [[ ${mounts[number + 1]} != "${mounts[0]}" ]] || return 0
    base=${base_of[${mounts[number + 1]}]-}
    if [[ ${mounts[number + 1]} != "${mounts[number + 1 + count]}" ]]; then
        # A file system of its own: inside it then, where neither Slurm's glob nor a login shell's sees a leading dot.
        parents[number]=${real[number]}
    fi
    if [[ -z $base ]]; then
        base=${parents[number]%/}/.hpcproxy-new.$HOSTNAME.$$ # other hosts may see this directory as well
        base_of[${mounts[number + 1]}]=$base
        debris+=("$base")
        rm -rf -- "${base%.*}".[0-9]* # of one that was cut off here
        why=$(exec mkdir -m 0700 -- "$base" 2>&1) ||
            fail_at "${parents[number]}" "${parents[number]} cannot take the files: $(last_words "$why")"
    fi
    why=$(exec cp -a -T -- "${from[number]}" "$base/$number" 2>&1) ||
        fail "${parents[number]} cannot take the files: $(last_words "$why")"
    from[number]=$base/$number
    copies+=("$base/$number"/*)
}

# Rename every file into place, in the manifest's order: from $store/stage, or on another mount from a directory beside its
# own, not from inside that one: slurmd and login shells read those whole.
move() {
    local number path why mounts=() real=() parents=() from=() copies=() files=()
    local -A base_of=()
    make_directories
    ((${#directories[@]})) || return 0
    find_mounts
    for number in "${!directories[@]}"; do bring_near "$number"; done
    if ((${#copies[@]})); then
        why=$(exec sync -- "${copies[@]}" 2>&1) || fail "not on disk: $(last_words "$why")"
    fi
    for number in "${!directories[@]}"; do
        files=()
        for path in "${paths[@]}"; do
            [[ ${path%/*} != "${directories[number]}" ]] || files+=("${from[number]}/${path##*/}")
        done
        why=$(exec mv -f -t "${directories[number]}" -- "${files[@]}" 2>&1) || fail "${directories[number]}: $(last_words "$why")"
    done
    sync -- "${directories[@]}" # here it could leave a mixture
}

# Leave on record for our Prolog whether Slurm runs our Epilog, if that is known; false if it was on record already.
mark() {
    local path=$own_directory/in-force
    case $in_force in
        yes) [[ ! -e $path ]] && { : >"$path" || fail "$path cannot be written"; } ;;
        no) [[ -e $path ]] && { rm -f -- "$path" || fail "$path cannot be removed"; } ;;
        *) false ;;
    esac
} 2>/dev/null

# Fail if what is to go Slurm would miss: hooks of another slurm_directory, or of another `via`. A plugin that is not there does
# no harm, but each srun says so as long as plugstack.conf names it: it goes when who decides has taken that line out.
refuse_to_lose() {
    local path hooks=()
    for path in ${gone[@]+"${gone[@]}"}; do
        case $path in
            "$plugin")
                [[ -z $unplugged ]] || continue
                answer "fact plugged $path"
                fail "plugstack.conf may still name $path; take that out first: undeploy --via spank"
                ;;
            "$task_prolog" | */prolog.d/* | */epilog.d/*) hooks+=("$path") ;;
        esac
    done
    ((${#hooks[@]} == 0)) || refuse_while_needed "${hooks[@]}"
}

apply() {
    local text record place
    take_lock
    compare
    refuse_to_lose
    make_record
    read_all "$store/manifest"
    if ((${#changes[@]} + ${#gone[@]} == 0)); then
        if [[ $text == "$record" ]]; then
            debris+=("$store/next") # of one that was cut off at its very end
            if mark; then finish changed; fi
            finish unchanged
        fi
        place=$store
        while [[ ! -e $place ]]; do place=${place%/*}; done
        if ! [[ -w ${place:-/} ]]; then # nothing is to change, and a record only serves a rollback
            if mark; then finish changed; fi
            finish unchanged
        fi
    fi
    unpack
    say_changes
    become
    mark || :
    # shellcheck disable=SC2154 # set in the line that has read this
    [[ -z $hpcproxy_facts ]] || facts
    finish changed
}

# Take those that are for another host to bring back from paths and what belongs to them; they are `others` from then on.
leave_others() {
    local i
    for i in "${!paths[@]}"; do
        [[ ${digests[i]} == "$elsewhere" ]] || continue
        others+=("${paths[i]}")
        unset "paths[i]" "digests[i]" "modes[i]" "owners[i]"
    done
}

rollback() {
    local text record why
    take_lock
    [[ -s $store/previous/found ]] || fail 'no earlier version is kept here'
    read_manifest "$store/previous/found"
    leave_others
    read_all "$store/previous/manifest"
    record=$text
    compare
    refuse_to_lose
    say_changes
    [[ ! -e $store/stage ]] || rm -rf -- "$store/stage"
    why=$(exec cp -a -T -- "$store/previous/tree" "$store/stage" 2>&1) || fail "$store cannot take the files: $(last_words "$why")"
    become
    finish changed
}
