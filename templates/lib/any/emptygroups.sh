# shellcheck shell=bash
# Cgroups whose last process was still on its way out when they were ended (group.sh): an empty name each.

# Remove the groups in $1 that were still busy when they were ended, once there are more than $2 names. In a group of a
# tunnel that lives is its supervisor, or it has been made this minute; in doubt a name stays.
sweep_groups() {
    local names=("$1"/*-*) name pid
    ((${#names[@]} > $2)) || return 0
    while read -r name; do
        if ! read -r pid <"$name/cgroup.procs"; then
            rmdir -- "$name/way" || :
            rmdir -- "$name" || :
        fi
    done < <(exec find "$1" -mindepth 1 -maxdepth 1 -type d -name '*-*' -mmin +1)
} 2>/dev/null
