# shellcheck shell=dash
# Say what a person should know of the environment just exported. Sourced; valid in bash and dash.

# After __hpcproxy_export: if it left a proxy of the site's in force, say so; false if there is none.
__hpcproxy_tell() {
    if __hpcproxy_site_proxy; then
        printf 'hpcproxy: the proxy that your environment names stays in force (replace_proxy: true changes that)\n' >&2
        return 0
    fi
    return 1
}
