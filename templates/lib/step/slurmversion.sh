# shellcheck shell=bash
# What depends on which Slurm this is.

slurm='' slurm_words=''

# Set `slurm` to its version, 20.11.4 as 2011, and `slurm_words` to what srun calls it; 0 where srun does not say. It is
# asked once.
slurm_version() {
    [[ -z $slurm ]] || return 0
    slurm=0
    read -r -t 6 slurm_words < <(exec timeout -s KILL 5 srun --version 2>/dev/null </dev/null) || :
    if [[ $slurm_words =~ ([0-9]{2})\.([0-9]{2})(\.|$) ]]; then slurm=$((10#${BASH_REMATCH[1]}${BASH_REMATCH[2]})); fi
}

# True if it counts the CPUs of an --overlap step, all of the job's unless it asks for fewer, and lets any other step
# wait for them for ever: 20.11 to 21.08. (Seen in 20.11.4, not in 22.05.8; the NEWS of 22.05 say so.)
counts_overlap() {
    slurm_version
    ((slurm >= 2011 && slurm < 2205))
}

# True if a core of each node is held to be such a step's whatever it asks for, so that a step of the user's with --exact
# that needs all of them would wait for ever, unless it is told to overlap, too: 21.08. (Read in its sources.)
asks_overlap() {
    slurm_version
    ((slurm >= 2108 && slurm < 2205))
}

# True if it is too old, and `sentence` says so then.
slurm_is_too_old() {
    slurm_version
    ((slurm && slurm < least_slurm)) || return 1
    printf -v sentence '%s is too old, %d.%02d is needed' "${slurm_words//[^[:print:]]/?}" "$((least_slurm / 100))" "$((least_slurm % 100))"
}
