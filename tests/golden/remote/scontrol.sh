slurm_bin=''
seconds=10
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
#= lib/host/scontrol.sh
find_slurm
ask_slurm "$seconds" "$@"
