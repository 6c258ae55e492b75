# shellcheck shell=bash
# Everything of ours goes from this host, for receive.sh.

# End the tunnels of jobs that run here: their Epilog is about to go. All are told first, so that they go side by side.
end_supervisors() {
    local record where supervisor tunnel firewall group hierarchies
    for record in "$run_base"/holders/*.said; do
        record=${record##*/}
        if read_record "${record%.said}"; then tell_to_end; fi
    done
    for record in "$run_base"/holders/*.said; do
        record=${record##*/}
        if [[ $record == *.*.said ]]; then end_tunnel "${record%.said}"; fi
    done
    if hash nft 2>/dev/null; then nft_bounded 2 'delete table inet hpcproxy' || :; fi
    find_hierarchies
    for where in ${hierarchies[@]+"${hierarchies[@]}"}; do
        sweep_groups "$where/hpcproxy" 0
        rmdir -- "$where/hpcproxy" 2>/dev/null || :
    done
}

# The directory of running jobs' states is gone, whatever users have left in it.
remove_states() {
    local directory
    [[ -w $run_base ]] || return 0
    for directory in "$run_base"/*.*[0-9]; do scrap "$directory"; done
    timeout -s KILL 60 rm -rf --one-file-system -- "$run_base"
}

# Remove what is `known` and still as we left it, the hooks first; what is not is named in `kept`.
remove_files() {
    local i path
    ((${#known[@]})) && look_at "${known[@]}"
    for ((i = ${#known[@]} - 1; i >= 0; i--)); do
        path=${known[i]}
        [[ -n ${by_path[$path]-} ]] || continue
        if [[ -z ${ours[${by_path[$path]%% *}]-} ]] && ! { [[ -n $lost ]] && is_marked "$path"; }; then
            answer "file foreign $path"
            kept+=" $path"
            continue
        fi
        rm -f -- "$path" 2>/dev/null || fail_at "${path%/*}" "$path cannot be removed"
        answer "file remove $path"
    done
}

# Remove every file that is still as we left it, hooks first, then the directories that we made.
remove() {
    local i kept='' known=() version lost='' there=''
    local -A ours=() listed=()
    # Where our record is gone, with a disk or an image, or tells of an older version than another host has put into a
    # directory that both have, the files themselves say whose they are.
    [[ -r $store/manifest || -r $store/next ]] || lost=1
    for i in "${!paths[@]}"; do
        ours[${digests[i]}]=1
        [[ -n $lost ]] || continue
        known+=("${paths[i]}")
        listed[${paths[i]}]=1
        if [[ -e ${paths[i]} ]]; then there=1; fi
    done
    [[ -d $store || -n $there ]] || finish unchanged
    take_lock
    for version in manifest next; do
        [[ -r $store/$version ]] || continue
        read_manifest "$store/$version"
        for i in "${!paths[@]}"; do
            ours[${digests[i]}]=1
            if [[ -z ${listed[${paths[i]}]-} ]]; then known+=("${paths[i]}"); fi
            listed[${paths[i]}]=1
        done
    done
    # By other names too: an earlier roll-out's, of another slurm_directory.
    refuse_while_needed "$task_prolog" ${drop_ins[@]+"${drop_ins[@]}"} ${known[@]+"${known[@]}"}
    remove_files
    end_supervisors
    rm -f -- "$own_directory/in-force" 2>/dev/null || fail "$own_directory/in-force cannot be removed"
    remove_made
    rm -rf -- "$store"
    remove_states
    [[ -z $kept ]] || finish "failed changed by somebody else and kept:$kept"
    finish changed
}

# Directories that we made; where our record is gone, those that bear our name.
remove_made() {
    local made=() i path
    if [[ -n $lost ]]; then
        for path in "${known[@]}"; do
            if [[ ${path%/*} == */hpcproxy ]]; then rmdir -- "${path%/*}" 2>/dev/null || :; fi
        done
    fi
    [[ -r $store/made ]] || return 0
    mapfile -t made <"$store/made"
    for ((i = ${#made[@]} - 1; i >= 0; i--)); do rmdir -- "${made[i]}" 2>/dev/null || :; done
}
