# shellcheck shell=bash
# The last stage of scripts/deploy-test, which sources this: the farm moves to PostgreSQL and a bucket,
# and a second coordinator takes over when the first one's machine dies, as docs/deploy.md has it.
#
# The database and the S3 server run on this machine and listen on the gateway of the hosts' network.

spare=spare
programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
store_key=coordinators-key
# Quoted in a unit's environment, or lost.
store_secret='coordinators"secret\'

as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)

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

in_database() { "${as_postgres[@]}" "$programs/psql" --no-psqlrc --quiet --host "$work/database" --username postgres "$@"; }

# Whoever comes over the network needs TLS and the password.
start_database() {
    local dir=$work/database tries
    [ -x "$programs/initdb" ] || die "PostgreSQL is missing: scripts/setup installs it"
    chmod 711 "$work"
    install -d -o postgres -g postgres -m 700 "$dir"
    certify_database "$dir"
    cd "$dir"
    "${as_postgres[@]}" "$programs/initdb" --auth-local=trust --auth-host=scram-sha-256 --username=postgres -D "$dir/data"
    { grep '^local' "$dir/data/pg_hba.conf"; echo "hostssl kulprit kulprit samenet scram-sha-256"; } >"$dir/hba"
    "${as_postgres[@]}" "$programs/postgres" -D "$dir/data" -k "$dir" -c "listen_addresses=$gateway" -c "hba_file=$dir/hba" \
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
    # At once, for nobody will want what it holds.
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
      AWS_SECRET_ACCESS_KEY: '$store_secret'
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
    on "$hub" sh -c 'cd /var/lib/kulprit && mkdir /var/backups/moved && mv journal.sqlite* artifacts /var/backups/moved'
}

expect_words() { # LOG WORDS
    [[ $(said "$1" | tr -s ' \n' ' ') == *"$2"* ]] ||
        die "$1 does not say \"$2\": see $KULPRIT_CACHE/logs/deploy-$1.log"
}

site_without_journal() {
    ! playbook site --limit "$hub" || die "$hub has left its journal behind"
}

site_without_ca() {
    ! playbook site || die "$spare is a coordinator without the farm's CA"
}

copy_ca() {
    on "$hub" tar --create --directory=/var/lib/kulprit ca |
        docker exec --interactive "$network-$spare" tar --extract --directory=/var/lib/kulprit
}

standing() { on "$1" systemctl show --property=StatusText --value kulprit-coordinator; }

leads() { # LEADER OTHER
    [[ $(standing "$1") == "serving https"* ]] &&
        [ "$(standing "$2")" = "standing by: https://$1:7453 leads the farm" ]
}

expect_leader() { # LEADER OTHER
    leads "$@" || die "$1 is to lead, and $2 to stand by, and they say: $(standing "$1"); $(standing "$2")"
}

# In which order the coordinators were upgraded.
expect_order() { # LOG HOST...
    local log=$1 order
    shift
    order=$(said "$log" | sed -n 's/^included: kulprit[.]farm[.]coordinator for //p' | head -n $# | paste -sd ' ')
    [ "$order" = "$*" ] || die "$log went to $order, where $* was right"
}

# The same job but for its guests' memory: the kernels are there, and all is run anew.
submit_for_other_guests() { # SEED
    sed -i 's/^memory_mib = .*/memory_mib = 320/' "$work/history-$1/job.toml"
    operator bisect start "$work/history-$1/job.toml" --output json | value "it['job']"
}

judged() { # JOB
    operator bisect show "$1" --output json |
        value "sum(revision['state'] in ('good', 'bad') for revision in it['progress']['revisions'])"
}

# Until something was found, and more is in hand.
wait_until_amid() { # JOB
    local tries
    for tries in $(seq 120); do
        [ "$(judged "$1")" = 0 ] || break
        sleep 1
    done
    [ "$tries" -lt 120 ] || die "job $1 has found nothing after $tries s"
    wait_until_busy
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

# The machine comes back.
revive() { # ADDRESS
    local tries
    docker start "$network-$hub"
    [ "$(address "$hub")" = "$1" ] || die "$hub has the address $(address "$hub"), and had $1"
    let_in "$hub"
    for tries in $(seq 60); do
        [[ $(standing "$hub") != "standing by"* ]] || return 0
        sleep 1
    done
    die "$hub does not stand by after $tries s: $(standing "$hub")"
}

move_farm() {
    local job hub_address
    agents=("${agents[0]}")
    hub_address=$(address "$hub")
    took database start_database
    took object-store start_store
    coordinators=("$hub" "$spare")
    coordinator_variables=$(shared_state)
    inventory "$(release one)" "${agents[@]}" >"$work/inventory.yml"
    took site-too-early site_without_journal
    expect_words site-too-early "$hub has its journal in /var/lib/kulprit/journal.sqlite"
    took move move_state
    took site-without-ca site_without_ca
    expect_words site-without-ca "copy /var/lib/kulprit/ca from $hub to $spare"
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
    wait_until_amid "$job"
    took takeover kill_the_leader
    took drain-without-hub playbook drain --limit "${agents[0]}"
    expect_state "${agents[0]}" quarantined
    ! is_over "$job" || say "the search was over before the agent was set aside"
    took undrain-without-hub playbook undrain --limit "${agents[0]}"
    expect_state "${agents[0]}" online
    took search-after-takeover watch "$job"
    found "$job" "${seeds[0]}"
    nothing_was_lost

    took revive revive "$hub_address"
    expect_leader "$spare" "$hub"
    inventory "$(release two)" "${agents[@]}" >"$work/inventory.yml"
    took upgrade-moved playbook upgrade
    expect_order upgrade-moved "$hub" "$spare"
    # The one that led may be back before the other has looked.
    leads "$hub" "$spare" || expect_leader "$spare" "$hub"
    expect_label two "$hub" "$spare" "${agents[@]}"
    expect_state "${agents[0]}" online
    printf '%-20s %5d ms\n' "nobody led for" "$takeover_ms" >>"$work/times"
}
