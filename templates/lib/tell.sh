# shellcheck shell=dash
# Say what a person should know of the environment just exported. Sourced; valid in bash and dash.

# After __hpcproxy_export: if a proxy of the site's or the caller's no_proxy overrides it, say so; false if none does.
__hpcproxy_tell() {
    if __hpcproxy_site_proxy; then
        printf 'hpcproxy: the proxy that your environment names stays in force (replace_proxy: true changes that)\n' >&2
        return 0
    fi
    if __hpcproxy_proxies_nothing; then
        printf "hpcproxy: your no_proxy has '*' in it, so no program of yours uses the way out\n" >&2
        return 0
    fi
    return 1
}
