# What is in a program, as CycloneDX 1.5, of what `cargo metadata` says.
#
# --argjson kept ["NAME@VERSION"]        crates that are linked: what only builds or tests is none of it
# --argjson sums {"NAME@VERSION": SHA-256}   of Cargo.lock
# --argjson natives ["NAME|VERSION|LICENCE|CRATE|MAKER:NAME|FILE"]   what no crate is, as infra/release/natives prints it

def id: "\(.name)@\(.version)";
# Not every crate writes SPDX as it is written today.
def licences: if .license then [{expression: (.license | gsub("\\s*/\\s*"; " OR "))}] else [] end;
def component($type):
    {type: $type, "bom-ref": id, name, version, description: (.description // "" | gsub("\\s+"; " ") | sub("^ | $"; "")),
     purl: "pkg:cargo/\(id)", licenses: licences, scope: "required"}
    + (if $sums[id] then {hashes: [{alg: "SHA-256", content: $sums[id]}]} else {} end)
    + (if .repository then {externalReferences: [{type: "vcs", url: .repository}]} else {} end);
# Who looks for known vulnerabilities finds these by the names of the NVD, if at all: a crate's version says nothing of them.
def native:
    {type: "library", "bom-ref": .ref, name, version, purl: "pkg:\(.ref)", licenses: [{expression: .licence}], scope: "required"}
    + (if .nvd != "" then {cpe: "cpe:2.3:a:\(.nvd):\(.version):*:*:*:*:*:*:*"} else {} end);

(.packages | map({key: .id, value: .}) | from_entries) as $packages
| .resolve.root as $root
| ($kept | map({key: ., value: true}) | from_entries) as $linked
| [.resolve.nodes[] | select(.id == $root or $linked[$packages[.id] | id])] as $nodes
| ($nodes | map({key: .id, value: true}) | from_entries) as $there
| [$natives[] | split("|") | {name: .[0], version: .[1], licence: .[2], by: .[3], nvd: .[4], ref: "generic/\(.[0])@\(.[1])"}] as $native
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {component: ($packages[$root] | component("application") | del(.scope))},
    components: ([$nodes[] | select(.id != $root) | $packages[.id] | component("library")] + [$native[] | native] | sort_by(.["bom-ref"])),
    dependencies: ([$nodes[] | (if .id == $root then "" else $packages[.id].name end) as $by | {
        ref: ($packages[.id] | id),
        dependsOn: ([.dependencies[] | select($there[.]) | $packages[.] | id] + [$native[] | select(.by == $by) | .ref] | unique)
    }] + [$native[] | {ref}] | sort_by(.ref))
}
