# shellcheck shell=bash
# A second wall: where the kernel has nftables and `nft` is there, it refuses to connect whoever is neither the job's user
# nor root to the address of the job's way out. The gate asks all the same; where there is no nft it asks alone.
#
# A table of our own and nothing of the site's: two sets, to which each way out adds an element and from which it is taken.

# The commands $2, all of them or none, within $1 seconds.
nft_bounded() {
    timeout -s KILL "$1" nft "$2" >/dev/null 2>&1 </dev/null
}

# Take away what `wall` says, unless another run of the job $1 (JOB.RESTART) is on record here: it has the same address.
lower_wall() {
    local other
    ((${#wall[@]} == 3)) || return 0
    for other in "$run_base/holders/${1%.*}".*[0-9]; do
        if [[ -f $other && ${other##*/} != "$1" ]]; then return 0; fi
    done
    nft_bounded 0.7 "delete element inet hpcproxy held { ${wall[0]} . ${wall[1]} }
        delete element inet hpcproxy passes { ${wall[0]} . ${wall[1]} . ${wall[2]} }" || :
}
