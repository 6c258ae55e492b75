# shellcheck shell=bash
# What leads programs elsewhere than through the tunnel, by the tables at the top of the script (files/elsewhere.py): in
# the job script behind the hook, in files that it reads, in tools' own files. Looked for while the tunnel is awaited,
# with no process more; said in a few lines, without values, for one may hold a password.

# Print what is known of it; $1 is the job script.
tell_others() {
    local others=() seen=' ' shown number
    [[ ${SLURM_PROCID:-0} == 0 && ${SLURM_NODEID:-0} == 0 ]] || return 0
    if [[ $1 == /* ]]; then look_into "$1" hook 0; fi
    look_at_tools
    look_at_variables
    shown=0
    for number in "${!others[@]}"; do
        if ((shown++ == 6)); then
            printf 'hpcproxy: and %d more; hpcproxy wrap SCRIPT shows all\n' "$((${#others[@]} - number))" >&2
            break
        fi
        printf 'hpcproxy: %s\n' "${others[number]//[^[:print:]]/?}" >&2
    done
}

# Set `lines` to those of the file $1, as far as a person writes them; false if it is none.
read_lines() {
    lines=()
    [[ -f $1 && -r $1 ]] || return 1
    mapfile -n 2000 -t lines <"$1" || return 1
} 2>/dev/null

# Add to `others` what stands in the shell file $1, in files that it reads too, $3 deep; behind our line if $2 is
# `hook`.
look_into() {
    local lines number line behind='' name=$1 file matched
    [[ $seen != *" $1 "* && $1 != "$home"/* ]] && read_lines "$1" || return 0
    seen+="$1 "
    if [[ $2 == hook ]]; then name='this script'; else behind=1; fi
    for number in "${!lines[@]}"; do
        line=${lines[number]:0:2000}
        if [[ $line == *'# hpcproxy hook' || $line == *prologue.sh* ]]; then
            behind=1
            continue
        fi
        # A cheap look first: each pattern costs as much as all of it.
        if [[ -z $behind || $line != *[Pp][Rr][Oo][Xx]* && $line != *@(ssh|curl|so[ck]*s|source|shuttle|. )* ]]; then continue; fi
        if [[ $line =~ (^|[[:blank:]])# ]]; then line=${line%%"${BASH_REMATCH[0]}"*}; fi
        look_at_line "$name:$((number + 1))"
        if (($3 < 2)) && [[ $line =~ $sourced ]]; then
            matched=${BASH_REMATCH[3]} file=${BASH_REMATCH[4]}
            case $matched in
                [~]* | *HOME*) file=${HOME-}/$file ;;
                *) if [[ $file != /* ]]; then file=${SLURM_SUBMIT_DIR:-$PWD}/$file; fi ;;
            esac
            look_into "$file" '' "$(($3 + 1))"
        fi
    done
}

# Add to `others` what `line`, which stands at $1, does: the first row that matches, and the first that takes back.
look_at_line() {
    local i rest=$line said=''
    while [[ $rest =~ $harmless ]]; do rest=${rest/"${BASH_REMATCH[0]}"/}; done
    for i in "${!line_patterns[@]}"; do
        if [[ -z $said && $rest =~ ${line_patterns[i]} ]] || [[ $i -ge $taken_from && $line =~ ${line_patterns[i]} ]]; then
            if [[ $i -lt $taken_from ]]; then said=1; fi
            others+=("$1: ${line_words[i]/'%'/"${BASH_REMATCH[line_groups[i]]}"}")
        fi
    done
}

look_at_tools() {
    local lines number i file
    for i in "${!tool_files[@]}"; do
        file=${tool_files[i]}
        if [[ $file != /* ]]; then file=${HOME-}/$file; fi
        read_lines "$file" || continue
        for number in "${!lines[@]}"; do
            if [[ ${lines[number]:0:2000} =~ ${tool_patterns[i]} ]]; then
                others+=("$file:$((number + 1)): ${tool_names[i]} ${tool_words/'%'/"${BASH_REMATCH[2]}"}")
            fi
        done
    done
}

look_at_variables() {
    local i name
    for i in "${!variable_names[@]}"; do
        name=${variable_names[i]}
        if [[ ${!name-} =~ ${variable_patterns[i]} && ! ${!name} =~ $variable_ours ]]; then
            others+=("your environment: $name: ${variable_words/'%'/"${variable_tools[i]}"}")
        fi
    done
}
