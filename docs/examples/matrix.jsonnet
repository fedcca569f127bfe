// Test with several versions of Go. Each has a cache of its own, which a change of go.sum begins anew: with what the
// last one had.
local versions = ['1.23', '1.24', '1.25'];

local test(version) = {
  name: 'go ' + version,
  runtime: { containers: [{ image: 'golang:%s-bookworm' % version }] },
  environment: { GOMODCACHE: '/tmp/modules', GOFLAGS: '-mod=readonly' },
  steps: [
    { type: 'clone' },
    {
      type: 'restore_cache',
      keys: ['go-%s-{{ arch }}-{{ sha256sum "go.sum" }}' % version, 'go-%s-{{ arch }}-' % version],
      dest_dir: '/tmp/modules',
    },
    { type: 'run', command: 'go mod download' },
    { type: 'run', command: 'go test ./...' },
    {
      type: 'save_cache',
      key: 'go-%s-{{ arch }}-{{ sha256sum "go.sum" }}' % version,
      contents: [{ source_dir: '/tmp/modules' }],
    },
  ],
};

{
  runs: [{
    name: 'test',
    tasks: [test(version) for version in versions] + [{
      name: 'all passed',
      runtime: { containers: [{ image: 'debian:bookworm-slim' }] },
      depends: [test(version).name for version in versions],
      steps: [{ run: 'echo every version passed' }],
    }],
  }],
}
