#!/bin/sh
# Plays, on one machine, what an operator and three owners do on four: invite, join, admit, install, approve. In earnest
# each step is done by the one whose it is, and the fingerprint is read out over the telephone, not by a script.
#
#   prepare.sh FOLDER HOST    makes FOLDER/federation and FOLDER/shop-1, shop-2, shop-3; HOST is the server's name
set -eu
umask 077

folder=$1
host=$2
shops="shop-1 shop-2 shop-3"
letters=$(mktemp -d)
trap 'rm -rf "$letters"' EXIT

if [ -e "$folder/federation/ready" ]; then
  echo "prepared already"
  exit 0
fi

fingerprint() {
  python -c 'import json, sys; print(json.load(sys.stdin)["fingerprint"])'
}

python - "$letters" $shops <<'END'
import pathlib, sys
from testudo_simulations.deployment.tables import write_tables
write_tables(pathlib.Path(sys.argv[1]), sys.argv[2:])
END
cp "$letters/plan.toml" "$folder/federation/plan.toml"
testudo-server init "$folder/federation" --federation shops --host "$host"
for shop in $shops; do
  testudo-server invite "$folder/federation" "$shop" --to "$letters/$shop.invite"
  told=$(testudo-client join "$letters/$shop.invite" "$folder/$shop" --to "$letters/$shop.request" \
    --min-cohort 3 --min-group 3 --json | fingerprint)
  testudo-server admit "$folder/federation" "$letters/$shop.request" --fingerprint "$told" --to "$letters/$shop.answer"
  testudo-client install "$letters/$shop.answer" "$folder/$shop" --fingerprint "$told"
done
for shop in $shops; do
  # The roster has grown since the first was admitted. In earnest: testudo-client fetch, from the running server.
  cp "$folder/federation/roster.json" "$folder/$shop/roster.json"
  cp "$letters/plan.toml" "$folder/$shop/plan.toml"
  cp "$letters/$shop.csv" "$folder/$shop/table.csv"
  testudo-client approve "$folder/$shop/plan.toml" "$folder/$shop" --yes
done
touch "$folder/federation/ready"
