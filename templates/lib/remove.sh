# shellcheck shell=bash
# Everything of ours goes from this host, for receive.sh.

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
