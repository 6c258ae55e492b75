# shellcheck shell=bash
# Where this kernel keeps cgroups.

# Set the array `hierarchies` to where a cgroup can be made, the better one first.
find_hierarchies() {
    local line rest where type options lines=() freezer=()
    hierarchies=()
    mapfile -t lines </proc/self/mounts # at once: for each `read` the kernel begins at the table's first line
    for line in ${lines[@]+"${lines[@]}"}; do
        rest=${line#* } where=${rest%% *} rest=${rest#* } type=${rest%% *} rest=${rest#* } options=${rest%% *}
        case $type:,$options, in
            cgroup2:*,rw,*) hierarchies+=("$where") ;;
            cgroup:*,rw,*,freezer,* | cgroup:*,freezer,*,rw,*) freezer+=("$where") ;;
        esac
    done
    hierarchies+=(${freezer[@]+"${freezer[@]}"})
}

# True if a tunnel can have a cgroup of its own here, as far as that is seen without making one: one of version 2 can be
# frozen from Linux 5.2 on, and then each but the first says so.
can_have_group() {
    local where below hierarchies
    find_hierarchies
    for where in ${hierarchies[@]+"${hierarchies[@]}"}; do
        [[ -w $where ]] || continue
        for below in "$where"/*/; do
            if [[ ! -d $below || -e $below/cgroup.freeze || -e $below/freezer.state ]]; then return 0; fi
            break
        done
    done
    return 1
}
