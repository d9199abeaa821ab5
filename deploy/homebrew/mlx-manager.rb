# A formula for a tap. It has not been run: there is no Mac among the development machines, and no release to point at yet.
# `url` and `sha256` are those of a released source archive; the dependencies come as wheels, as the lock file pins them.
class MlxManager < Formula
  include Language::Python::Virtualenv

  desc "Local inference server for every MLX model on a Mac"
  homepage "https://github.com/mlx-manager/mlx-manager"
  url "https://files.pythonhosted.org/packages/source/m/mlx_manager/mlx_manager-0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "Apache-2.0"

  depends_on arch: :arm64
  depends_on :macos
  depends_on "python@3.12"

  def install
    virtualenv_create(libexec, "python3.12")
    system libexec/"bin/python", "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", "requirements.lock"
    system libexec/"bin/python", "-m", "pip", "install", "--no-deps", "--no-build-isolation", "."
    bin.install_symlink libexec/"bin/mlx-manager"
    generate_completions_from_executable(bin/"mlx-manager", shell_parameter_format: :typer)
  end

  service do
    run [opt_bin/"mlx-manager", "serve"]
    keep_alive successful_exit: false
    log_path var/"log/mlx-manager.log"
    error_log_path var/"log/mlx-manager.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/mlx-manager --version")
  end
end
