# shellcheck shell=bash
# Where this kernel keeps cgroups.

# Set the array `hierarchies` to where a cgroup can be made, the better one first.
find_hierarchies() {
    local where type options _ freezer=()
    hierarchies=()
    while read -r _ where type options _; do
        case $type:,$options, in
            cgroup2:*,rw,*) hierarchies+=("$where") ;;
            cgroup:*,rw,*,freezer,* | cgroup:*,freezer,*,rw,*) freezer+=("$where") ;;
        esac
    done </proc/self/mounts
    hierarchies+=(${freezer[@]+"${freezer[@]}"})
}
