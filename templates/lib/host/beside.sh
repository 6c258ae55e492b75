# shellcheck shell=bash
# What Slurm would run on this host beside our own scripts, and what is wrong with each of them, for contract.sh.
#
#   after, before     the paths and patterns of Slurm's Prolog and Epilog as they shall be and as they are; what those of
#                     `before` run is the site's, and has run already
#   controllers_own   scripts of the controller's

# Set `matches` to what Slurm makes of the pattern $1: glob(7), and an absolute path.
expand_pattern() {
    local IFS=''
    matches=()
    shopt -s nullglob
    # shellcheck disable=SC2206 # to be expanded
    matches=($1)
    shopt -u nullglob
    if ((${#matches[@]} == 0)) && [[ -e $1 || -L $1 ]]; then matches=("$1"); fi
}

# Name every breach of the files that the patterns run in Slurm's order: the last name first, and none after one that fails.
look_beside() {
    local pattern file i when matches=()
    local -A known=()
    for pattern in ${before[@]+"${before[@]}"}; do
        expand_pattern "$pattern"
        for file in ${matches[@]+"${matches[@]}"}; do known[$file]=1; done
    done
    for pattern in ${after[@]+"${after[@]}"}; do
        expand_pattern "$pattern"
        when='before ours'
        for ((i = ${#matches[@]} - 1; i >= 0; i--)); do
            file=${matches[i]}
            if [[ $file == "$prolog" || $file == "$epilog" ]]; then
                when='after ours'
            elif [[ -z ${known[$file]-} ]]; then
                look_at_one "$file" "$when"
            fi
        done
    done
}

# Name what Slurm would trip over in the file $1, which it would run $2.
look_at_one() {
    local file=$1 head='' program facts owner mode own
    if [[ -L $file && ! -e $file ]]; then
        breach "$file is a link that leads nowhere; Slurm runs it $2"
        return 0
    elif [[ ! -f $file ]]; then
        breach "$file is no file; Slurm takes everything there for a script, this one $2"
        return 0
    fi
    [[ -x $file ]] || breach "$file has no run bit; Slurm runs it $2"
    IFS= read -r head 2>/dev/null <"$file" || :
    case $head in
        $'\x7fELF'*) ;;
        '#!'*$'\r') breach "$file has line ends of Windows; Slurm runs it $2" ;;
        '#!'*)
            read -r program _ <<<"${head#'#!'}"
            [[ -f $program && -x $program ]] || breach "$file wants ${program:-nothing}, which is not here; Slurm runs it $2"
            ;;
        '') breach "$file is empty, or begins with an empty line; Slurm runs it $2" ;;
        *) breach "$file does not begin with #!, so Slurm cannot run it, $2" ;;
    esac
    facts=$(stat -L -c '%u %a' -- "$file")
    read -r owner mode <<<"$facts"
    if [[ $owner != 0 ]] || ((8#$mode & 022)); then breach "$file can be written by others than root, who runs it $2"; fi
    case ${file##*/} in
        *'~' | *.bak | *.orig | *.old | *.rpm* | *.dpkg-* | *.swp | *.save) breach "$file looks like a backup, and is run $2" ;;
        README* | *.md | *.txt) breach "$file looks like a text to read, and is run $2" ;;
    esac
    for own in ${controllers_own[@]+"${controllers_own[@]}"}; do
        [[ ! $file -ef $own ]] || breach "$file is a script of the controller's, and is run $2"
    done
}

# Say where the slurmd of this host has its slurm.conf; a breach if it is not the one that is changed.
look_at_slurm() {
    local told=''
    if find_slurm && is_slurmd; then told=${SLURM_CONF-}; fi
    if [[ -n $told && ! $told -ef $slurm_conf ]]; then
        breach "slurmd reads $told here, not $slurm_conf; say where it is with slurm_directory"
    fi
    if [[ -e $slurm_conf ]]; then answer 'fact conf own'; else answer 'fact conf none'; fi
    if [[ -e $image ]]; then answer 'fact image yes'; fi
}
