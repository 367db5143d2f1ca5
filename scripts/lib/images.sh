# The images that the walk-throughs use, built here from Debian's packages alone, and kept as files so that a second time is quick.
# To be sourced after say.sh, packages.sh and docker.sh; DOCKER_HOST names the daemon that gets them.
#
#   anna                     the platform's base image: a minimal Debian
#   zmfsea/cmp-postgresql    PostgreSQL on it (scripts/images/cmp-postgresql)
#   registry                 the platform's registry of images (scripts/images/registry)
#   xtao/web                 a web server of one megabyte (scripts/images/web)
#
# Every kept file and every image carries a key made from all that went into it: what has changed is built again, the rest is left alone.
# shellcheck shell=bash disable=SC2154 # top, cache: say.sh

images_suite=bookworm
# Raise it when the base is to be fetched anew without any other change.
images_base_revision=1

# images_need NAME...: these images, in the daemon. Builds what is missing; one builder at a time on a machine.
images_need() {
    local name missing=()
    for name in "$@"; do
        image_is_there "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] || images_alone images_bring "${missing[@]}"
}

images_bring() {
    local name
    for name in "$@"; do
        image_is_there "$name" || image_bring "$name"
    done
}

# images_alone COMMAND...: with the cache for itself. What is unfinished there is removed at the end, however that comes; and before, as nothing
# removes it after kill -9.
images_alone() {
    mkdir -p "$cache"
    (
        flock 9
        images_sweep
        trap images_sweep EXIT
        "$@"
    ) 9>"$cache/lock"
}

# All that is unfinished; its makers have the lock.
images_sweep() {
    local root
    for root in "$cache"/root.*; do
        [ ! -d "$root" ] || image_root_remove "$root"
    done
    rm -rf --one-file-system "$cache"/build.*/ "$cache"/push.* "$cache"/*.part
}

image_is_there() {
    [ "$(docker image inspect --format '{{index .Config.Labels "xtao.key"}}' "$1" 2>/dev/null </dev/null)" = "$(image_key "$1")" ]
}

# The key of an image: of everything that goes into it. Packages are taken as the mirror has them on the day of the build.
image_key() {
    case $1 in
        anna) printf '%s %s %s\n' "$images_suite" "$(dpkg --print-architecture)" "$images_base_revision" | image_digest ;;
        zmfsea/cmp-postgresql) { image_key anna && cat "$top"/scripts/images/cmp-postgresql/*; } | image_digest ;;
        registry) { image_key anna && cat "$top"/scripts/images/registry/*; } | image_digest ;;
        xtao/web) cat "$top"/scripts/images/web/* | image_digest ;;
        *) die "no image is called $1" ;;
    esac
}

image_digest() { sha256sum | cut -c 1-16; }

image_bring() {
    local name=$1 key file
    key=$(image_key "$name")
    case $name in
        anna)
            file=$(images_base_file)
            [ -s "$file" ] || image_base_build "$file"
            step "image anna: importing"
            docker import --change "LABEL xtao.key=$key" --change 'CMD ["/bin/bash"]' "$file" anna >/dev/null || die "Docker did not take the base image $file"
            return
            ;;
        zmfsea/cmp-postgresql | registry) image_is_there anna || image_bring anna ;;
    esac
    file="$cache/${name//\//_}-$key.tar"
    if [ -s "$file" ]; then
        step "image $name: loading"
        docker load --quiet --input "$file" >/dev/null || die "Docker did not take $file; remove the file to have the image built again"
        return
    fi
    step "image $name: building"
    image_build "$name" "$key"
    docker save --output "$file.part" "$name" && mv "$file.part" "$file"
}

# image_build NAME KEY: docker build with its folder, the Debian packages it wants beside it, and no network: apt runs here, where it is set up.
image_build() {
    local name=$1 key=$2 context log
    context=$(mktemp -d "$cache/build.XXXXXX")
    log="$cache/build.log"
    cp "$top/scripts/images/${name##*/}/"* "$context/"
    case $name in
        zmfsea/cmp-postgresql) image_packages "$context/packages" postgresql-15 ;;
        registry) image_packages "$context/packages" docker-registry ;;
        xtao/web)
            package_download "$context" busybox-static
            dpkg-deb --extract "$context"/busybox-static_*.deb "$context/unpacked"
            mv "$context"/unpacked/bin/busybox "$context/busybox"
            rm -rf "$context"/busybox-static_*.deb "$context/unpacked"
            ;;
    esac
    if ! DOCKER_BUILDKIT=0 docker build --rm --network none --label "xtao.key=$key" --tag "$name" "$context" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        die "docker build of $name failed; see above, and $log"
    fi
}

# image_packages DIRECTORY PACKAGE...: the packages and all that they need beyond the base image, into DIRECTORY.
image_packages() {
    local into=$1
    shift
    packages_refresh
    mkdir -p "$into/partial"
    apt-get install --download-only --no-install-recommends -y -qq \
        -o Dir::State::status="$(images_base_file).status" -o Dir::State::extended_states="$into/extended_states" \
        -o Dir::Cache::archives="$into" -o Debug::NoLocking=1 "$@" >"$cache/apt.log" 2>&1 </dev/null || {
        tail -n 8 "$cache/apt.log" >&2
        die "apt-get could not fetch: $*"
    }
    rm -rf "$into/partial" "$into/lock" "$into/extended_states"
}

images_base_file() { printf '%s/base-%s.tar.gz\n' "$cache" "$(image_key anna)"; }

# image_base_build FILE: a minimal Debian by debootstrap, from the mirror that this machine's apt uses; beside it its list of packages, from
# which later images see what is there already.
image_base_build() {
    local file=$1 mirror root log
    need_root "building the base image"
    packages_need debootstrap:debootstrap
    # shellcheck disable=SC2016 # the dollar signs are apt's
    mirror=$(apt-get indextargets --format '$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)' 2>/dev/null |
        awk -v suite="$images_suite" '$1 == "Packages" && $2 == suite && $3 == "main" { print $4; exit }')
    [ -n "$mirror" ] || die "apt on this machine knows no mirror of Debian $images_suite, from which the base image would be made (see /etc/apt/sources.list)"
    step "image anna: making a minimal Debian $images_suite (a minute or two, once)"
    root=$(mktemp -d "$cache/root.XXXXXX")
    log="$cache/debootstrap.log"
    if ! debootstrap --variant=minbase "$images_suite" "$root" "$mirror" >"$log" 2>&1 </dev/null; then
        tail -n 8 "$log" >&2
        die "debootstrap failed; see above, and $log"
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/etc/resolv.conf
    cp "$root/var/lib/dpkg/status" "$file.status"
    tar --numeric-owner --one-file-system -C "$root" -c . | gzip -1 >"$file.part"
    mv "$file.part" "$file"
}

# debootstrap can leave /proc mounted in a tree that it did not finish: what is mounted is taken off first, and never deleted through.
image_root_remove() {
    local inside
    while read -r inside; do
        umount "$inside" 2>/dev/null || umount --lazy "$inside"
    done < <(awk -v root="$1/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
    rm -rf --one-file-system "$1"
}
