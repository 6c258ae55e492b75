slurm_bin=''
seconds=25
since=1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
#= lib/host/scontrol.sh
#= lib/host/heard.sh
