# What is in a program, as CycloneDX 1.5, of what `cargo metadata` says.
#
# --argjson kept ["NAME@VERSION"]        crates that are linked: what only builds or tests is none of it
# --argjson sums {"NAME@VERSION": SHA-256}   of Cargo.lock
# --arg openssl VERSION                  which no crate brings along

def id: "\(.name)@\(.version)";
# Not every crate writes SPDX as it is written today.
def licences: if .license then [{expression: (.license | gsub("\\s*/\\s*"; " OR "))}] else [] end;
def component($type):
    {type: $type, "bom-ref": id, name, version, description: (.description // "" | gsub("\\s+"; " ") | sub("^ | $"; "")),
     purl: "pkg:cargo/\(id)", licenses: licences, scope: "required"}
    + (if $sums[id] then {hashes: [{alg: "SHA-256", content: $sums[id]}]} else {} end)
    + (if .repository then {externalReferences: [{type: "vcs", url: .repository}]} else {} end);

(.packages | map({key: .id, value: .}) | from_entries) as $packages
| .resolve.root as $root
| ($kept | map({key: ., value: true}) | from_entries) as $linked
| [.resolve.nodes[] | select(.id == $root or $linked[$packages[.id] | id])] as $nodes
| ($nodes | map({key: .id, value: true}) | from_entries) as $there
| {id: "openssl@\($openssl)"} as $native
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {component: ($packages[$root] | component("application") | del(.scope))},
    components: ([$nodes[] | select(.id != $root) | $packages[.id] | component("library")] + [
        {type: "library", "bom-ref": $native.id, name: "openssl", version: $openssl, purl: "pkg:generic/\($native.id)",
         licenses: [{expression: "Apache-2.0"}], scope: "required"}] | sort_by(.["bom-ref"])),
    dependencies: ([$nodes[] | {
        ref: ($packages[.id] | id),
        dependsOn: ([.dependencies[] | select($there[.]) | $packages[.] | id]
            + (if $packages[.id].name == "openssl-sys" then [$native.id] else [] end) | unique)
    }] + [{ref: $native.id}] | sort_by(.ref))
}
