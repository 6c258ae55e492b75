# shellcheck shell=dash
# Whose a proxy is that the environment names. Asked of the address that it means, not of its spelling, and without a
# fork. Sourced; valid in bash and dash. The caller has set __hpcproxy_port.

# Set __hpcproxy_host and __hpcproxy_port_named to host and port of the proxy $1, as programs read it: scheme, user and
# path are none of it. Both are empty where it is blank.
__hpcproxy_parts() {
    local rest
    rest=${1#"${1%%[![:space:]]*}"}
    rest=${rest%"${rest##*[![:space:]]}"}
    rest=${rest#*://}
    rest=${rest%%[/?#]*}
    rest=${rest##*@}
    case $rest in
        '['*']'*)
            __hpcproxy_host=${rest#?}
            __hpcproxy_host=${__hpcproxy_host%%']'*}
            __hpcproxy_port_named=${rest##*']'}
            ;;
        *:*:*) __hpcproxy_host=$rest __hpcproxy_port_named='' ;;
        *)
            __hpcproxy_host=${rest%%:*}
            __hpcproxy_port_named=${rest#"$__hpcproxy_host"}
            ;;
    esac
    __hpcproxy_port_named=${__hpcproxy_port_named#:}
}

# Set __hpcproxy_number to the number that $1 is in C's notation (decimal, 0x…, 0…), as inet_aton(3) takes it; else
# false.
__hpcproxy_count() {
    case $1 in
        '' | ???????????*) return 1 ;;
        0[xX]*) case ${1#??} in '' | *[!0-9a-fA-F]*) return 1 ;; esac ;;
        0*) case $1 in *[!0-7]*) return 1 ;; esac ;;
        *[!0-9]*) return 1 ;;
    esac
    __hpcproxy_number=$(($1))
}

# True if $1 is an IPv4 address, in any notation of inet_aton(3), in 127.0.0.0/8, or 0.0.0.0, which leads to this
# machine. Sets __hpcproxy_number to its second octet then.
__hpcproxy_loopback4() {
    local rest address bits width
    rest=$1. address=0 bits=32
    while [ -n "$rest" ]; do
        if [ "$bits" -eq 0 ] || ! __hpcproxy_count "${rest%%.*}"; then return 1; fi
        rest=${rest#*.}
        # The last part is all that is left of the 32 bits.
        width=8
        if [ -z "$rest" ]; then width=$bits; fi
        if [ "$((__hpcproxy_number >> width))" -ne 0 ]; then return 1; fi
        bits=$((bits - width))
        address=$((address | __hpcproxy_number << bits))
    done
    __hpcproxy_number=$((address >> 16 & 255))
    [ "$((address >> 24))" -eq 127 ] || [ "$address" -eq 0 ]
}

# True if $1 is an IPv6 address that leads to this machine: ::1, ::, or one of the above within it. As above.
__hpcproxy_loopback6() {
    local rest high
    rest=${1%%%*}
    __hpcproxy_number=0
    case $rest in *:*) ;; *) return 1 ;; esac
    case ${rest%1} in *[!0:]*) ;; *) return 0 ;; esac
    high=''
    case $rest in
        *.*) ;;
        *)
            high=${rest%:*}
            high=${high##*:}
            case $high in 7[Ff]??) ;; *) return 1 ;; esac
            rest=${rest%:*}
            ;;
    esac
    set -- "${rest%:*}" "${rest##*:}"
    case ${1%[Ff][Ff][Ff][Ff]} in *[!0:]*) return 1 ;; esac
    if [ -n "$high" ]; then
        __hpcproxy_count "0x${high#??}"
    else
        __hpcproxy_loopback4 "$2"
    fi
}

# True if the host $1 is this machine itself by an address that everybody on it may listen at. A name is looked up in
# /etc/hosts alone, whose first lines are the machine's own: a resolver may take its time.
__hpcproxy_loopback() {
    local IFS=' 	' here domain address names lines
    here='[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]' domain='[Ll][Oo][Cc][Aa][Ll][Dd][Oo][Mm][Aa][Ii][Nn]'
    set -- "${1%.}"
    __hpcproxy_number=0
    # shellcheck disable=SC2254 # patterns they are
    case $1 in
        '') return 1 ;;
        $here | *.$here | $here.$domain | [Ii][Pp]6-$here | [Ii][Pp]6-[Ll][Oo][Oo][Pp][Bb][Aa][Cc][Kk]) return 0 ;;
        ${here}[46] | ${here}[46].$domain | ${here}[46].${domain}[46]) return 0 ;;
        *[!0-9a-fA-FxX.:%]*) ;;
        *) if __hpcproxy_loopback4 "$1" || __hpcproxy_loopback6 "$1"; then return 0; fi ;;
    esac
    lines=0
    while [ "$lines" -lt 64 ] && read -r address names; do
        lines=$((lines + 1))
        case " $names " in
            *[[:space:]]"$1"[[:space:]]*)
                if __hpcproxy_loopback4 "$address" || __hpcproxy_loopback6 "$address"; then return 0; fi
                ;;
        esac
    done 2>/dev/null </etc/hosts
    __hpcproxy_number=0
    return 1
}

# True if the proxy $1 is one of the site's or the user's own, elsewhere than on this machine's loopback, where there is
# only the old recipe by hand or a tunnel that leads nowhere from here.
__hpcproxy_elsewhere() {
    __hpcproxy_parts "$1"
    [ -n "$__hpcproxy_host" ] && ! __hpcproxy_loopback "$__hpcproxy_host"
}

# True if the proxy $1 is a tunnel of ours, by an address that only those have (address.sh), or the old recipe at our
# port, and nobody has made sure that it is this job's. (The recipe's own ssh, at work here, is the user's affair.)
__hpcproxy_stray() {
    __hpcproxy_parts "$1"
    if ! __hpcproxy_loopback "$__hpcproxy_host"; then return 1; fi
    if [ "$__hpcproxy_number" -ge 64 ]; then return 0; fi
    if [ "$__hpcproxy_port_named" != "${__hpcproxy_port-}" ]; then return 1; fi
    ! __hpcproxy_own_recipe "$__hpcproxy_host"
}

# True if it is this user who listens at our port of $1, 127.0.0.1 or ::1 by any name, and nobody else does.
__hpcproxy_own_recipe() {
    local IFS=' 	' table where state uid own found
    case $1 in 127.0.0.1 | 127.1 | 0.0.0.0 | ::1 | [A-Za-z]*) ;; *) return 1 ;; esac
    while read -r where own _ && [ "$where" != Uid: ]; do :; done </proc/self/status
    found=1
    for table in tcp tcp6; do
        while read -r _ where _ state _ _ _ uid _; do
            case $state:$where in
                st:*) continue ;;
                0A:0100007F:* | 0A:7F000001:* | 0A:00000000:*) ;;
                0A:00000000000000000000000001000000:* | 0A:0000000000000000000000000000000[01]:*) ;;
                0A:*) continue ;;
                *) break ;;
            esac
            if [ "$((0x${where##*:}))" -ne "$__hpcproxy_port" ]; then continue; fi
            if [ "$uid" != "$own" ]; then return 1; fi
            found=0
        done 2>/dev/null <"/proc/net/$table"
    done
    return "$found"
}
