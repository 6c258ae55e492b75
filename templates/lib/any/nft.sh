# shellcheck shell=bash
# A firewall: where the kernel has nftables and `nft` is there, it refuses to connect whoever is neither the job's user
# nor root to the address of the job's tunnel. The agent asks all the same; where there is no nft it asks alone.
#
# A table of our own and nothing of the site's: two sets, to which each tunnel adds an element and from which it is
# taken.

# The commands $2, all of them or none, within $1 seconds.
nft_bounded() {
    timeout -s KILL "$1" nft "$2" >/dev/null 2>&1 </dev/null
}

# Take away what `firewall` says, unless another run of the job $1 (JOB.RESTART) is on record here: it has the same
# address.
lower_firewall() {
    local other
    ((${#firewall[@]} == 3)) || return 0
    for other in "$run_base/holders/${1%.*}".*[0-9]; do
        if [[ -f $other && ${other##*/} != "$1" ]]; then return 0; fi
    done
    nft_bounded 0.7 "delete element inet hpcproxy held { ${firewall[0]} . ${firewall[1]} }
        delete element inet hpcproxy passes { ${firewall[0]} . ${firewall[1]} . ${firewall[2]} }" || :
}
