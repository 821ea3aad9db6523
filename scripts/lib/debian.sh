# Debian packages from the machine's own mirror, without touching its apt configuration.
#
#   debian_mirror    the mirror this machine is configured with
#   private_apt      apt-get with sources, lists and caches of its own, under the lab cache
#   unpack_packages  downloads packages and unpacks them into a folder

debian_codename() { . /etc/os-release && echo "$VERSION_CODENAME"; }

debian_mirror() {
  local uri
  uri="$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' | awk -v release="$(debian_codename)" \
    '$2 == release && $3 == "main" { print $1; exit }')"
  [ -n "$uri" ] || fail "no apt source for Debian $(debian_codename) is configured"
  echo "$uri"
}

private_apt() {
  local folder="$cache/apt"
  local options=(
    -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State=$folder/state" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=
    -o Debug::NoLocking=1 -o Dir::State::status=/var/lib/dpkg/status
  )
  if [ ! -e "$folder/ready" ]; then
    say "reading the package lists of $(debian_codename) and its backports"
    local mirror codename keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror="$(debian_mirror)" codename="$(debian_codename)"
    mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
    for suite in "$codename" "$codename-backports"; do
      echo "deb [signed-by=$keyring] $mirror $suite main"
    done >"$folder/sources.list"
    apt-get -qq "${options[@]}" update </dev/null >&2
    touch "$folder/ready"
  fi
  local tool=$1
  shift
  "$tool" "${options[@]}" "$@" </dev/null
}

# unpack_packages FOLDER PACKAGE...: a PACKAGE may carry its suite, as NAME/SUITE.
unpack_packages() {
  local folder=$1 downloads
  shift
  downloads="$(mktemp -d)"
  (cd "$downloads" && private_apt apt-get -qq download "$@" >&2)
  mkdir -p "$folder"
  for package in "$downloads"/*.deb; do dpkg -x "$package" "$folder"; done
  rm -rf "$downloads"
}
