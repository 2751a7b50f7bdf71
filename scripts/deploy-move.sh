# shellcheck shell=bash
# The last stage of scripts/deploy-test, which sources this: the farm moves to PostgreSQL and a bucket,
# and a second coordinator takes over when the first one's machine dies, as docs/deploy.md has it.
#
# The database and the S3 server run on this machine and listen on the gateway of the hosts' network.

spare=spare
programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
store_key=coordinators-key
store_secret=coordinators-secret

as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }

# A CA of this run's own, and a certificate for the database's address.
certify_database() { # DIRECTORY
    local dir=$1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=the database's CA" \
        -keyout "$dir/ca.key" -out "$dir/ca.pem"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=database \
        -keyout "$dir/server.key" -out "$dir/server.csr"
    echo "subjectAltName = IP:$gateway" >"$dir/server.ext"
    openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
        -extfile "$dir/server.ext" -out "$dir/server.pem"
    chown postgres:postgres "$dir/server.key"
}

in_database() { as_postgres "$programs/psql" --no-psqlrc --quiet --host "$work/database" --username postgres "$@"; }

# Whoever comes over the network needs TLS and the password.
start_database() {
    local dir=$work/database tries
    [ -x "$programs/initdb" ] || die "PostgreSQL is missing: scripts/setup installs it"
    command -v openssl >/dev/null || die "openssl is missing: please install it"
    chmod 711 "$work"
    install -d -o postgres -g postgres -m 700 "$dir"
    certify_database "$dir"
    cd "$dir"
    as_postgres "$programs/initdb" --auth-local=trust --auth-host=scram-sha-256 --username=postgres -D "$dir/data"
    { grep '^local' "$dir/data/pg_hba.conf"; echo "hostssl kulprit kulprit samenet scram-sha-256"; } >"$dir/hba"
    as_postgres "$programs/postgres" -D "$dir/data" -k "$dir" -c "listen_addresses=$gateway" -c "hba_file=$dir/hba" \
        -c ssl=on -c "ssl_cert_file=$dir/server.pem" -c "ssl_key_file=$dir/server.key" &
    database=$!
    cd "$KULPRIT_ROOT"
    for tries in $(seq 60); do
        ! in_database --command 'SELECT' || break
        sleep 0.5
    done
    password=$(openssl rand -hex 16)
    in_database --command "CREATE ROLE kulprit LOGIN PASSWORD '$password'" --command 'CREATE DATABASE kulprit OWNER kulprit'
    (umask 077 && echo "$gateway:5432:kulprit:kulprit:$password" >"$work/pgpass")
    journal="postgres://kulprit@$gateway/kulprit?sslmode=verify-full&sslrootcert=/etc/kulprit/database-ca.pem"
    say "the database answers after $tries tries"
}

# A bucket is a directory of this server.
start_store() {
    local server
    server=$(scripts/object-store)
    mkdir -p "$work/store/farm"
    "$server" --host "$gateway" --port 9000 --access-key "$store_key" --secret-key "$store_secret" "$work/store" &
    store=$!
}

# Ends what this stage has started; called however the script ends.
stop_services() {
    [ -z "${store:-}" ] || kill "$store" 2>/dev/null || true
    # At once: nobody will want what it holds.
    [ -z "${database:-}" ] || kill -QUIT "$database" 2>/dev/null || true
    wait ${store:+"$store"} ${database:+"$database"} 2>/dev/null || true
}

# What the inventory says of the coordinators from then on.
shared_state() {
    cat <<END
    coordinator_settings:
      KULPRIT_JOURNAL: $journal
      PGPASSFILE: /etc/kulprit/pgpass
      KULPRIT_ARTIFACTS: s3://farm/artifacts
      AWS_ENDPOINT: http://$gateway:9000
      AWS_ALLOW_HTTP: "true"
      AWS_REGION: us-east-1
      AWS_ACCESS_KEY_ID: $store_key
      AWS_SECRET_ACCESS_KEY: $store_secret
    coordinator_files:
      - path: /etc/kulprit/pgpass
        content: "{{ lookup('ansible.builtin.file', '$work/pgpass') }}"
      - path: /etc/kulprit/database-ca.pem
        content: "{{ lookup('ansible.builtin.file', '$work/database/ca.pem') }}"
END
}

copy_artifacts() {
    mkdir -p "$work/store/farm/artifacts"
    on "$hub" tar --create --directory=/var/lib/kulprit/artifacts . |
        tar --extract --skip-old-files --directory="$work/store/farm/artifacts"
}

# Has a host keep what is on standard input.
keep() { # HOST FILE
    docker exec --interactive "$network-$1" install --owner=kulprit --mode=600 /dev/stdin "$2"
}

move_state() {
    operator artifact verify
    copy_artifacts
    keep "$hub" /etc/kulprit/pgpass <"$work/pgpass"
    keep "$hub" /etc/kulprit/database-ca.pem <"$work/database/ca.pem"
    on "$hub" systemctl stop kulprit-coordinator
    copy_artifacts
    on "$hub" kulprit-coordinator backup --state /var/lib/kulprit /var/backups/kulprit.sqlite
    on "$hub" env PGPASSFILE=/etc/kulprit/pgpass \
        kulprit-coordinator restore --journal "$journal" /var/backups/kulprit.sqlite
    on "$hub" sh -c 'mkdir /var/backups/moved && mv /var/lib/kulprit/journal.sqlite* /var/lib/kulprit/artifacts /var/backups/moved'
}

site_without_ca() {
    ! playbook site || die "$spare is a coordinator without the farm's CA"
}

copy_ca() {
    on "$hub" tar --create --directory=/var/lib/kulprit ca |
        docker exec --interactive "$network-$spare" tar --extract --directory=/var/lib/kulprit
}

standing() { on "$1" systemctl show --property=StatusText --value kulprit-coordinator; }

expect_leader() { # LEADER OTHER
    local leads stands
    leads=$(standing "$1")
    stands=$(standing "$2")
    [[ $leads == "serving https"* ]] || die "$1 does not lead: $leads"
    [ "$stands" = "standing by: https://$1:7453 leads the farm" ] || die "$2 does not stand by: $stands"
}

# The same job but for its guests' memory: the kernels are there, and all is run anew.
submit_for_other_guests() { # SEED
    sed -i 's/^memory_mib = .*/memory_mib = 320/' "$work/history-$1/job.toml"
    operator bisect start "$work/history-$1/job.toml" --output json | value "it['job']"
}

# The first one's machine dies: each of its processes at once. Says how long nobody led.
kill_the_leader() {
    local start tries
    docker kill "$network-$hub"
    start=$(date +%s%3N)
    for tries in $(seq 300); do
        [[ $(standing "$spare") != "serving https"* ]] || break
        sleep 0.1
    done
    takeover_ms=$(($(date +%s%3N) - start))
    [ "$tries" -lt 300 ] || die "$spare has not taken over after $takeover_ms ms: $(standing "$spare")"
    say "$spare leads after $takeover_ms ms"
}

revive() {
    local before tries
    before=$hub_address
    docker start "$network-$hub"
    [ "$(address "$hub")" = "$before" ] || die "$hub has the address $(address "$hub"), and had $before"
    let_in "$hub"
    for tries in $(seq 60); do
        [[ $(standing "$hub") != "standing by"* ]] || return 0
        sleep 1
    done
    die "$hub does not stand by after $tries s: $(standing "$hub")"
}

move_farm() {
    local job
    agents=("${agents[0]}")
    hub_address=$(address "$hub")
    took database start_database
    took object-store start_store
    took move move_state
    coordinators=("$hub" "$spare")
    coordinator_variables=$(shared_state)
    inventory "$(release one)" "${agents[@]}" >"$work/inventory.yml"
    took site-without-ca site_without_ca
    said site-without-ca | tr -s ' \n' ' ' | grep -q "copy /var/lib/kulprit/ca from $hub to $spare" ||
        die "site does not ask for the CA: see $KULPRIT_CACHE/logs/deploy-site-without-ca.log"
    copy_ca
    took site-moved playbook site
    took site-moved-again playbook site
    changed_nothing site-moved-again
    KULPRIT_COORDINATOR=$(addresses)
    export KULPRIT_COORDINATOR
    expect_leader "$hub" "$spare"
    expect_state "${agents[0]}" online
    took doctor operator doctor --farm
    took verify operator artifact verify

    job=$(submit_for_other_guests "${seeds[0]}")
    wait_until_busy
    took takeover kill_the_leader
    took drain-without-hub playbook drain --limit "${agents[0]}"
    expect_state "${agents[0]}" quarantined
    ! is_over "$job" || die "the search was over before $hub was killed"
    took undrain-without-hub playbook undrain --limit "${agents[0]}"
    expect_state "${agents[0]}" online
    took search-after-takeover watch "$job"
    found "$job" "${seeds[0]}"
    nothing_was_lost

    took revive revive
    expect_leader "$spare" "$hub"
    inventory "$(release two)" "${agents[@]}" >"$work/inventory.yml"
    took upgrade-moved playbook upgrade
    # Had it not been the last, it would lead again.
    expect_leader "$hub" "$spare"
    expect_label two "$hub" "$spare" "${agents[@]}"
    expect_state "${agents[0]}" online
    printf '%-20s %5d ms\n' "no one led for" "$takeover_ms" >>"$work/times"
}
