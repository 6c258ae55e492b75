# shellcheck shell=dash
# Say what a person should know of the environment just exported. Sourced; valid in bash and dash.

# After __hpcproxy_export: if a proxy of the site's or the caller's no_proxy overrides it, say so; false if none does.
__hpcproxy_tell() {
    local name value
    if __hpcproxy_site_proxy && ! __hpcproxy_in_use; then
        printf 'hpcproxy: the proxy that your environment names stays in force (replace_proxy: true changes that)\n' >&2
        return 0
    fi
    if __hpcproxy_proxies_nothing; then
        printf "hpcproxy: your no_proxy has '*' in it, so no program of yours uses the tunnel\n" >&2
        return 0
    fi
    if __hpcproxy_changed; then
        printf 'hpcproxy: %s leads elsewhere now: something set it since, and programs that read it use no tunnel\n' "$name" >&2
        return 0
    fi
    return 1
}

# True if a variable leads to the tunnel: then the rest did, too, when it was exported.
__hpcproxy_in_use() {
    case "|${http_proxy-}|${https_proxy-}|${HTTP_PROXY-}|${HTTPS_PROXY-}|" in *"|${HPCPROXY_URL-}|"*) return 0 ;; esac
    return 1
}

# True if a variable that we have exported is another by now, or gone; `name` is then which. An old recipe's export does
# that, or a module's.
__hpcproxy_changed() {
    for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do
        case $name in
            http_proxy) value=${http_proxy-} ;;
            https_proxy) value=${https_proxy-} ;;
            HTTP_PROXY) value=${HTTP_PROXY-} ;;
            *) value=${HTTPS_PROXY-} ;;
        esac
        if [ "$value" != "${HPCPROXY_URL-}" ]; then return 0; fi
    done
    for name in all_proxy ALL_PROXY; do
        case $name in all_proxy) value=${all_proxy-} ;; *) value=${ALL_PROXY-} ;; esac
        if [ -n "$value" ]; then return 0; fi
    done
    return 1
}
