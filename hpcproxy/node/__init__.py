"""The agent that runs on compute nodes: holds ssh, and one port that speaks HTTP and SOCKS for this job's user.

Python 3.6 and later, standard library only; imports nothing of the rest of hpcproxy. `build.build` makes one file of
it, `agent.pyz`, which is started as `python3 -I agent.pyz hold ...`.

    hold      the command: arguments, the state directory, the port, signals
    settings  agent.json into frozen, validated values        policy   which hosts and ports may be reached
    loop      coroutines over epoll                           stream   one socket, read and written with deadlines
    peer      who owns the other end of a connection          clients  bounds, one task per connection
    talk      what one client says, and what it is told       request, socks, framing   the dialects, pure
    gate      what all conversations share                    order    who speaks first at a far end
    direct    ssh has the client's own socket                 pipe     a relay, where it cannot have it
    answer    the outcome in the client's own words           exchange absolute-form HTTP requests
    way       one open channel to a far end                   tunnel   a working ssh at (nearly) all times
    master    one ssh and its control socket                  mux      the bytes of OpenSSH's PROTOCOL.mux
    child     fork, exec, reap                                sshlog   what ssh's stderr tells about channels
    record    log, status.json, access.log                    folder   the state directory
    port      the command that takes a port as root and becomes the program that keeps it
    compiled  the modules, compiled, for the next start

Data goes over ssh's multiplexing protocol and never over `-D`: only there a failed open is told from a good one.
"""

VERSION = "1"
