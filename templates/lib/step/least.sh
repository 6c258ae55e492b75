# shellcheck shell=bash
# First of all: an older bash would not understand what follows, and it reads a script command by command.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < least_bash)); then
    least_words="bash $BASH_VERSION is too old, $((least_bash / 100)).$((least_bash % 100)) is needed"
    case ${1-} in
        hold) printf 'gave-up %s bash %s\n' "${SLURMD_NODENAME:-${HOSTNAME%%.*}}" "$least_words" ;;
        probe) printf 'failed bash %s\n' "$least_words" ;;
        *)
            printf 'hpcproxy: no tunnel: %s\n' "$least_words" >&2
            exit 1
            ;;
    esac
    exit 0
fi
