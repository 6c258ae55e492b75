slurm_bin=''
seconds=10
since=1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
#= lib/host/scontrol.sh
#= lib/host/heard.sh
