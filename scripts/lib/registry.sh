# The platform's registry as a service of the platform, with the base image in it. To be sourced after say.sh and images.sh.
# shellcheck shell=bash disable=SC2154 # top, cache: say.sh

# registry_need BINARIES WORK_DIR: the registry of the server in WORK_DIR runs, and has the image `anna`. What is there is left alone.
registry_need() {
    local binaries=$1 work_dir=$2
    if [ "$("$binaries/xtao" registry status --work_dir "$work_dir" | jq -r .state)" = running ]; then
        say "the registry runs already"
    else
        images_need registry
        step "starting the registry: a place for everybody's images, as a service of the platform"
        "$binaries/xtao" registry install --work_dir "$work_dir" >/dev/null || die "the registry does not run; see above, and docker logs"
    fi
    if "$binaries/imgcli" --work_dir "$work_dir" show anna >/dev/null 2>&1; then return; fi
    images_need anna
    step "image anna: into the registry"
    images_alone registry_push_base "$binaries" "$work_dir"
}

registry_push_base() {
    local binaries=$1 work_dir=$2 file
    file=$(mktemp "$cache/push.XXXXXX")
    docker save --output "$file" anna </dev/null
    if ! "$binaries/imgcli" --work_dir "$work_dir" push "$file" >/dev/null 2>"$file.log"; then
        cat "$file.log" >&2
        die "the base image could not be pushed; see above"
    fi
}
